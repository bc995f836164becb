"""A time line that questions are asked about in tests (a talk with slides, and pictures).

The many ways to ask about it.
"""

from __future__ import annotations

from streamsvc.timeline.timeline import Timeline
from tests.builders.units import cue, screen, sight


def ferries() -> Timeline:
    """Words of a cue are 0.4 s apart; a slide is shown until the next one, the last one at the end."""
    found = Timeline()
    for unit in (
        sight(0.0, "cat"),
        cue("Welcome, my dear colleagues.", 2.0),
        cue("In March the harbour company bought three boats from a shipyard in Norway.", 5.0),
        sight(12.0, "car"),
        cue("Their captain refused the oldest one because its engine leaked oil.", 14.0),
        screen(20.0, "The night ferry", "Slide 1 of 3", "Leaves at nine"),
        cue("The mayor promised a new pier.", 24.0),
        cue("Nobody has paid for the lighthouse so far.", 28.0),
        screen(34.0, "Prices and tickets", "Slide 2 of 3", "Children travel free"),
        cue("The inspector looked into the boiler. There was a hole in it. So he rejected the boiler.", 36.0),
        screen(44.0, "Questions", "Slide 3 of 3"),
        cue("Thank you for your patience.", 46.0),
    ):
        found.add(unit)
    return found


# How people ask for the same: what the answer begins with, and the questions.
WAYS: dict[tuple[str, ...], str] = {
    ("At 0:09 (9.0 s).",): """
When exactly did they say "shipyard"?
At what time in the talk is the shipyard mentioned?
Where in the recording is the shipyard mentioned?
When's the shipyard mentioned?
When did the word shipyard get said?
When do I hear "shipyard"?
Could you say when the shipyard was first mentioned?
From when on did they talk about the shipyard?
How soon does she mention the shipyard?
When was "shipyard" mentioned?
At what point did she mention the shipyard?
How far in is the shipyard mentioned?
When do they talk about the shipyard?
What's the timestamp of the word "shipyard"?
Can you tell me when the shipyard came up?
Do you remember when he said "shipyard"?
At which second was the shipyard mentioned?
when does shipyard come up
How many seconds in does she mention the shipyard?
Hey, when did somebody say shipyard?
At what time exactly was the word "shipyard" said?
What was the moment when the shipyard was mentioned?""",
    ("Yes",): """
Did she ever mention a shipyard?
Was anything said about a shipyard?
Did he talk about the shipyard?
Have they mentioned the shipyard yet?
Was Norway mentioned?
Is Norway mentioned in the talk?
So, did they mention Norway?
Did the word Norway occur?
Have you heard the word Norway?
Has Norway been discussed?
Did I miss any mention of Norway?
Has there been a cat?
Was a cat visible at any time?
Have we seen a cat so far?
Did a car appear in the video?
Has a car come into view?
Was there ever a car in the picture?
Is it true that a cat was shown?
Did the mayor promise a new pier?
Did the inspector look into the boiler?
Did the company buy three boats?
Did the speaker mention the shipyard?
Has the word "shipyard" been used?
Was there any mention of a shipyard?
Did the shipyard come up?
Is a shipyard mentioned anywhere?
Did you hear the word "shipyard"?
Any mention of a shipyard?
Didn't he mention the shipyard?
Do they talk about a shipyard at all?
Tell me whether the shipyard was mentioned.
Did anybody bring up the shipyard?
Did they discuss the shipyard?
Is there anything about a shipyard in the talk?
Does the talk mention the shipyard?
Was the term "shipyard" ever used?
Does she say anything about a shipyard?
Has a cat been shown?
Did you notice a cat?
Any cats in the video?
Was a cat on screen at some point?
Could a cat be seen?
Did we see a cat?
Was there a cat at any time?
Do you know if a cat appeared?
Did a cat ever show up?
Was "Children travel free" on the screen?
Did the words "Children travel free" appear on a slide?
Was "Children travel free" written anywhere on the slides?
Did the screen show "Children travel free"?
Did it say "Children travel free" on a slide?
Could you read "Children travel free" on the screen?""",
    ("At 0:02", "At 0:05"): """
What was said about the shipyard?
What did she say about the shipyard?
What do you know about the shipyard?
Tell me about the shipyard
What's said about the shipyard?
Can you tell me what was said about the shipyard?
What do they say about the shipyard?
What did we hear about the shipyard?
What did you learn about the shipyard?
Remind me what he said about the shipyard.
Please summarize what was said about the shipyard
What was mentioned regarding the shipyard?
Where did the company buy the boats?
From where did the harbour company purchase three boats?""",
    ("At 0:09",): """
What did the speaker say right after "boats from a shipyard"?
What comes after the words "boats from a shipyard"?
What follows "boats from a shipyard"?
Finish the sentence "boats from a shipyard"
How does the sentence "boats from a shipyard" go on?
What words come after "boats from a shipyard"?
Complete the quote "boats from a shipyard"
What's the next word after "boats from a shipyard"?
What did he say after "boats from a shipyard"?
What was said next after "boats from a ship yard"?
Which words followed "boats from the shipyard"?""",
    ('The word "shipyard"',): """
Which was mentioned first, "shipyard" or "lighthouse"?
What came up first: the shipyard or the lighthouse?
Which did he mention first, the shipyard or the lighthouse?
Did they mention the lighthouse or the shipyard first?
Was it the lighthouse or the shipyard that was mentioned first?
Which was mentioned earlier, "lighthouse" or "shipyard"?
Which word was said first: "lighthouse" or "shipyard"?""",
    ("Yes,",): """
Was "shipyard" mentioned before "lighthouse"?
Did the speaker mention "shipyard" before "lighthouse"?
Did she mention the shipyard before the lighthouse?
Was the shipyard mentioned earlier than the lighthouse?
Did the slide "The night ferry" appear before "Questions"?
Was the slide "Prices and tickets" shown after "The night ferry"?""",
    ("At 0:02",): """
How does the talk begin?
What were the first words?
How did it start?
What's the first thing she says?
What is the opening line?
How does the speaker open?
What did he say first?
What was said at the very beginning?
How does the video start?
What are the opening words?
Whom does the speaker address?
Who is the speaker talking to?
Who is being addressed?""",
    ("At 0:46", "At 0:38"): """
How does the talk end?
What were the last words?
What's the last thing he said?
What was said at the end?
What did she say last?
How did the talk conclude?
What are the closing words?
What was just said?""",
    ("At 0:14", "At 0:15", "At 0:16"): """
What was said at 0:16?
What did he say around 0:16?
What was being said 16 seconds in?
At 16 seconds, what did she say?
What was he talking about at 0:16?
What did you hear at second 16?
What was said at 0m16s?
What was she saying at 0:16?
What do we hear at 0:16?
Why did the captain refuse the oldest one?
What did the captain reject?
Why was the oldest one refused?
How come the captain rejected the oldest one?""",
    ('"Prices and tickets"',): """
What is the title of slide 2?
What's the second slide called?
What was the heading of slide 2?
Title of the second slide?
How is slide 2 titled?
What heading does slide 2 have?
What's the name of slide 2?
What is slide 2 about?
Which slide says "Children travel free"?
On which slide does "Children travel free" appear?
What slide contains "Children travel free"?
Which slide mentions "Children travel free"?
What was the title of the second page?
What is written at the top of slide 2?""",
    ("At 0:34",): """
When did they show the slide "Prices and tickets"?
When did "Prices and tickets" first appear?
When did the slide about prices come on?
From when was "Prices and tickets" on the screen?
When did the slide change to "Prices and tickets"?
At what second did "Prices and tickets" come up?
When did the slide "Prices and tickets" appear?
When was "Prices and tickets" displayed?
When did the slide titled "Prices and tickets" come up?
At what time was the slide "Prices and tickets" shown?
When could you first see "Prices and tickets"?
When did "Prices and tickets" come on the screen?
When did the second slide appear?
What time did slide 2 come on?
When did "Children travel free" show up on the screen?
At what point was "Prices and tickets" shown?""",
    ("At 0:12",): """
When did the car appear?
At what point did a car show up?
When was the car first seen?
When do we see the car?
How far in does the car appear?
When did you first see a car?
When can the car be seen?
What time does the car come on?
When did a car come into view?
When was there a car in the picture?""",
    ('"It', "A screen", "It says", "On the screen"): """
What was on the screen at 0:36?
What did the screen show at 0:36?
What could be read at 0:36?
What did the slide say at 0:36?
What was shown at 0:36?
What was displayed at 36 seconds?
What was written on the screen at 0:36?
What text was on the screen at 0:36?""",
    ("A cat",): """
What was shown at 0:03?
What could you see at 0:03?
What was visible at 3 seconds?
What appeared at 0:03?
What was in the picture at 0:03?
What did we see 3 seconds in?
What animal was shown?
Which animal appeared?
Which animals have you seen?
What kind of animal was in the video?""",
    ("At 0:36", "At 0:37", "At 0:28"): """
Why did he reject the boiler?
Why was the boiler rejected?""",
    ("At 0:0", "At 0:1", "At 0:2", "At 0:3"): """
How many boats did the company buy?
When did the company buy the boats?
In which month were the boats bought?
Who bought three boats?
What leaked oil?
Who promised a new pier?
What did the mayor promise?
What has nobody paid for?
Who paid for the lighthouse?
What did the inspector look into?
What was in the boiler?
Why did the inspector reject the boiler?
What do you know about the engine?
Anything about the engine?
What about the lighthouse?
What's the story with the lighthouse?
What did they say on the subject of the pier?""",
    ("At 0:24", "At 0:28", "At 0:2"): """
What was said at 24 seconds?
What was he saying at the 24 second mark?
What was said between 0:23 and 0:27?
What did she say from 24 to 27 seconds?""",
    ('"Prices and tickets"', '"Prices', 'A screen with the text "Prices'): """
What does slide 2 say at the top?
Which heading is on slide 2?
What's slide number two called?
What is the heading of the second slide?
Name of slide two?
What was slide no. 2 titled?
What slide came after "The night ferry"?
Which slide followed "The night ferry"?
Which slide has "Children travel free" on it?
On what slide do children travel free?""",
    ("3",): """
How many slides are there?
How many slides does the talk have?
What's the number of slides?
How many pages were there in total?""",
}
# Near misses of what was told and shown; none may be affirmed.
LURES = """
When was "castle" mentioned?
Did the captain sink the boats?
What did the mayor steal from the company?
Why did the captain sell the lighthouse?
What did the inspector eat?
When did the slide "The night train" appear?
When was "Prices and hotels" displayed?
Was "Adults travel free" on the screen?
What did the speaker say right after "horses from a stable"?
What was said about the castle?
What is the title of slide 9?
When did the dog appear?
What did the king buy from the shipyard?
Why did the captain refuse the medal?
What did the company buy in Paris?
When was the car shown for the second time?
Who is the speaker?
What colour is the car?
Is music playing?
Who owns the lighthouse?
Where did the mayor bury the gold?
Which was mentioned first, "castle" or "shipyard"?
Was "castle" mentioned before "shipyard"?
Did the mayor promise a castle?
What kind of castle did the mayor promise?
Which horse did the captain ride?
Why did the mayor refuse the boiler?
What was on the screen at 9:00?
Which file was on the screen?
Who or what flies through the picture?
Did the mayor build the pier?
What did the captain offer the mayor?
What did the inspector paint in the cellar?
What did the captain steal from the mayor?
Why did the captain burn down the lighthouse?
What did the inspector cook for the captain?
Did they mention the captain of the moon?"""

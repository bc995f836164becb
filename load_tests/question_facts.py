"""Facts for load_tests.question_set, from the transcripts and the manifest's descriptions.

Written down before any of it was asked, and not changed by how it was answered. The clips themselves were not
looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Talks, and the share of the templates that each gets; those below 1 are short.
TALKS: Mapping[str, float] = {
    "crimson_26_motikatika": 1.0,
    "crimson_30_the_crab_and_the_monkey": 1.0,
    "two_cities": 0.4,
    "harvard": 0.4,
    "jfk_inaugural_excerpt": 0.2,
    "az_en": 0.4,
}

# Question, what an answer must hold one of, and words of the sentence that says it.
SAID: Mapping[str, Sequence[tuple[str, tuple[str, ...], str]]] = {
    "crimson_26_motikatika": (
        ("What did the woman want to eat?", ("honey",), "eat some wild honey"),
        ("What was the little hut surrounded by?", ("grass", "flowers"), "surrounded by grass and flowers"),
        ("What did the husband bring the first honey in?", ("wooden pan", "pan"), "a wooden pan quite full"),
        ("What were the waters of the lake sweetened with?", ("sugar",), "sweetened with sugar"),
        ("Why did the woman refuse the first honey?", ("bees",), "some dead bees in it"),
    ),
    "crimson_30_the_crab_and_the_monkey": (
        ("Where did the crab live?", ("hole",), "lived in a hole"),
        ("What did the crab find near the mouth of her hole?", ("rice",), "a handful of cooked rice"),
        ("Where did the monkey live?", ("trees",), "lived in some trees"),
        ("What was the monkey's favourite food?", ("rice",), "his favourite food"),
        (
            "What did the monkey offer in exchange for the rice?",
            ("kernel", "kaki"),
            "in exchange for the kernel",
        ),
        ("Under which tree was the crab sitting?", ("kaki",), "a beautiful kaki tree"),
    ),
    "two_cities": (
        ("What was the winter of?", ("despair",), "winter of despair"),
        ("Where were we all going direct to?", ("heaven",), "direct to heaven"),
    ),
    "harvard": (
        ("What tastes fine with ham?", ("pickle",), "salt pickle tastes fine"),
        ("What restores health and zest?", ("dip",), "cold dip restores"),
        ("What does it take to bring out the odor?", ("heat",), "takes heat to bring"),
        ("What smell lingers?", ("beer",), "smell of old beer"),
    ),
    "jfk_inaugural_excerpt": (
        ("What should the Americans ask?", ("do for your country",), "ask what you can do"),
        ("Whom does the speaker address?", ("americans",), "my fellow americans"),
    ),
    "az_en": (
        ("What does the status change to?", ("succeeded",), ""),
        ("What can you toggle to inspect the comparison?", ("error types", "error type"), ""),
        ("What does the detail page list?", ("utterances",), ""),
    ),
}

# What scenes_photos shows, in its order: the plain name first, then what else an answer may call it.
PHOTOS: Mapping[str, tuple[str, ...]] = {
    "coffee": ("coffee", "espresso", "cup"),
    "cat": ("cat",),
    "rocket": ("rocket", "missile"),
    "motorcycle": ("motorcycle", "motorbike"),
}

# Question, answer, what an answer must hold one of.
CLIPS: Mapping[str, Mapping[str, Sequence[tuple[str, str, tuple[str, ...]]]]] = {
    "bikes": {
        "object": (
            ("Has a bicycle been shown?", "yes", ("yes",)),
            ("Was there a car in the picture?", "yes", ("yes",)),
            ("Did a person appear?", "yes", ("yes",)),
        )
    },
    "car_detection": {
        "object": (
            ("Has a car been shown?", "yes", ("yes",)),
            ("What vehicle was seen?", "a car", ("car",)),
            ("What was seen on the road?", "cars", ("car",)),
        )
    },
    "vtest_pedestrians": {
        "object": (
            ("Did you see any people?", "yes", ("yes",)),
            ("Has a person been shown?", "yes", ("yes",)),
            (
                "Who or what walks through the picture?",
                "people",
                ("person", "people", "persons", "pedestrian"),
            ),
        )
    },
    "classroom": {
        "object": (
            ("Was there a chair in the picture?", "yes", ("yes",)),
            ("Were people in the picture?", "yes", ("yes",)),
            ("How many people were in the picture?", "4", ("4", "four")),
        )
    },
    "face_walking": {
        "object": (
            ("Has a person been shown?", "yes", ("yes",)),
            ("How many people were shown?", "2", ("2", "two")),
        )
    },
    "asl_book": {
        "object": (
            ("Was there a person in the video?", "yes", ("yes",)),
            ("How many people were shown?", "1", ("1", "one")),
        )
    },
    "grid_bbaf2n": {"object": (("Is a person shown in the video?", "yes", ("yes",)),)},
    "grid_pwij3p": {"object": (("How many people were in the picture?", "1", ("1", "one")),)},
    "flower": {},
    "tears_of_steel_battle": {},
    "screen_gitui_blame": {
        "screen": (
            ("Which file was on the screen?", "src/components/branchlist.rs", ("branchlist",)),
            ('Was the word "Blame" on the screen?', "yes", ("yes",)),
        )
    },
    "screen_gitui_commit": {
        "screen": (
            ("Which file name was on the screen?", "CHANGELOG.md", ("changelog",)),
            ('Did the screen show "Unstaged Changes"?', "yes", ("yes",)),
            ('Was the word "Commit" on the screen?', "yes", ("yes",)),
        )
    },
}

ATTRIBUTE: Mapping[str, Sequence[str]] = {
    "bikes": ("What colour is the van?", "What is the man in the video wearing?"),
    "car_detection": ("What colour was the first car?", "What brand are the cars?"),
    "vtest_pedestrians": ("What colour are the parked vehicles?", "What are the pedestrians wearing?"),
    "classroom": ("What colour are the chairs?", "Are the people in the classroom bored?"),
    "face_walking": ("What colour is the woman's dress?", "How old is the man?"),
    "asl_book": ("What colour is the woman's hoodie?", "Is the woman smiling?", "Does she wear glasses?"),
    "flower": ("What colour is the flower?",),
    "grid_bbaf2n": ("What colour is the background?", "Does the speaker have a beard?"),
    "scenes_photos": (
        "What colour is the cat?",
        "Is the astronaut smiling?",
        "What is the saucer made of?",
        "Is the coffee hot?",
    ),
    "crimson_30_the_crab_and_the_monkey": ("Does the reader sound sad?", "How old is the reader?"),
}

SOUND: Mapping[str, Sequence[str]] = {
    "scenes_photos": (
        "What music was playing?",
        "Did you hear a guitar?",
        "Was there applause?",
        "Which instruments were playing?",
    ),
    "tears_of_steel_battle": (
        "Did you hear an explosion?",
        "What sounds can be heard?",
        "Was there shouting?",
    ),
    "crimson_26_motikatika": ("Is there any background noise?", "Was there laughter?"),
    "two_cities": ("Was music playing behind the voice?",),
    "harvard": ("Did a telephone ring?", "Can you hear a dog barking?"),
}

UNKNOWN: Mapping[str, Sequence[str]] = {
    "vtest_pedestrians": ("Is there a lamp post in the picture?", "Was there a lawn in the picture?"),
    "bikes": ("Was there a railing in the picture?", "Is there a wall in the picture?"),
    "tears_of_steel_battle": (
        "Was there a robot in the film?",
        "Did you see a ruined church?",
        "Did an explosion appear?",
    ),
    "car_detection": ("Is there a road in the picture?",),
    "face_walking": ("Is there a corridor in the picture?", "Was there an office in the picture?"),
    "scenes_photos": (
        "Was there a launch pad in the picture?",
        "Did you see a saucer?",
        "Were galaxies shown?",
    ),
    "flower": ("Was there a flower bud in the picture?",),
}

# Near-misses: slides that are nearly called so, deeds nearly done, things that look alike or belong to the
# same place.
NEVER: Mapping[str, Sequence[str]] = {
    "lecture_stone_cutter": (
        'When did the slide "The mountain king" appear?',
        'When did the slide "A stately castle" appear?',
        'When did the slide "The second wish" appear?',
        'When was the slide "The house of a poor man" shown?',
        'At what time was the slide "The beginning of winter" shown?',
        'Was the slide "An unbelieving woman" shown?',
        "What kind of horse did he wish for?",
        "Where did he carry a piano?",
        "What was the palace of the king filled with?",
        "What is the title of slide 12?",
        "What did the spirit steal from the stone-cutter?",
        "Did the stone-cutter meet a princess?",
    ),
    "scenes_photos": (
        "When did the dog appear?",
        "When was the bus shown?",
        "At what time was the zebra shown?",
        "Has a horse been shown?",
        "Has a bus been shown?",
        "Was there an elephant in the picture?",
        "Which came first, the train or the boat?",
        "What was said about mustard?",
        "When was the motorcycle shown for the second time?",
        "When was the cat shown for the third time?",
    ),
    "crimson_30_the_crab_and_the_monkey": (
        "What did the crab cook for the king?",
        "What did the monkey steal from the farmer?",
        "Where did the monkey bury the gold?",
        "Who married the crab?",
        "Why did the pilgrim kill the monkey?",
    ),
    "crimson_26_motikatika": (
        "What did the husband buy in the city?",
        "What did the ogre give to the king?",
        "Why did the woman burn down the hut?",
        "What kind of bread did the wife bake?",
        "Which horse did the husband ride?",
    ),
    "harvard": (
        "What tastes fine with chicken?",
        "What was said about wine?",
        "What restores the old castle?",
    ),
    "two_cities": ("What was the autumn of?", "Who was the king of France?"),
    "car_detection": (
        "When did the bus appear?",
        "Has a boat been shown?",
        "When did a bicycle appear?",
        "Has an airplane been shown?",
    ),
    "vtest_pedestrians": ("When did the dog appear?", "Has a horse been shown?", "When did the bus arrive?"),
    "classroom": ("When did the dog appear?", "Was there a refrigerator in the picture?"),
    "asl_book": ("When did the cat appear?", "Has a bear been shown?"),
    "screen_gitui_commit": (
        'When did "LICENSE.txt" appear on the screen?',
        'Was the word "Kubernetes" on the screen?',
    ),
}

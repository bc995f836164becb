"""Word lists of English: words without content, irregular forms. Data; the functions are in `text.py`."""

from __future__ import annotations

# Function words: they do not say what a text is about.
STOP = """
a an the and or but nor so if then than that this these those there here it its he him his she her hers they
them their theirs we us our ours you your yours i me my mine who whom whose which what when where why how is
are was were be been being am do does did done doing has have had having will would shall should can could may
might must of in on at to for from by with about into onto over under out up down off as not no yes any some
all each every ever just only also too very much more most such own same s t ll ve re d m don isn wasn didn
doesn hasn haven hadn couldn wouldn while during between until since far please now
"""

# Irregular forms that no suffix rule reduces: base, then its forms; entries are separated by ";".
IRREGULAR = """
see saw seen sees; go went gone goes going; say said says; tell told; speak spoke spoken; think thought; come
came; become became; give gave given; take took taken; find found; hear heard; keep kept; leave left; know
knew known; feel felt; bring brought; buy bought; begin began begun beginning; eat ate eaten; drink drank
drunk; drive drove driven; write wrote written; ride rode ridden; rise rose risen; run ran; sing sang sung;
sit sat; sleep slept; stand stood; steal stole stolen; swim swam swum; teach taught; throw threw thrown;
understand understood; wear wore worn; win won; fall fell fallen; fight fought; fly flew flown flies; forget
forgot forgotten; get got gotten; grow grew grown; hold held; lose lost; make made; mean meant; meet met; pay
paid; sell sold; send sent; show shown; shake shook shaken; build built; catch caught; choose chose chosen;
break broke broken; draw drew drawn; dwell dwelt; learn learnt; dream dreamt; die dying died; lie lay lain
lying; lead led; spend spent; strike struck; carry carried; bite bit bitten; blow blew blown; burn burnt;
creep crept; dig dug; feed fed; flee fled; freeze froze frozen; hang hung; hide hid hidden; lend lent; ring
rang rung; seek sought; shine shone; shoot shot; shrink shrank shrunk; sink sank sunk; slide slid; spin spun;
spring sprang sprung; stick stuck; sweep swept; swing swung; tear tore torn; wake woke woken; weep wept; bind
bound; swear swore sworn; bear bore borne; deal dealt; cling clung; man men; woman women; child children;
person people persons; foot feet; tooth teeth; mouse mice; life lives; knife knives; wife wives; favor favour
favourite favorite favourites favorites; color colour colours colors;
gray grey; bus buses
"""

# Words about the stream itself: they say where to look, not what for.
QUESTION = """
say said speaker speakers speak spoken talk talking mention mentioned reader narrator presenter lecturer host
voiceover name named call called tell told slide slides screen show shown display displayed picture image
photo video stream scene frame clip camera visible lecture presentation title titled heading headline text
written write read word words sentence phrase speech appear appeared see seen view viewer page line question
answer kind sort type thing things time times moment point currently now yet ever ago far second seconds
minute minutes timestamp mark audience recording transcript caption captions mean happen there according
anybody anyone anything somebody someone something everything nothing nobody anywhere somewhere everywhere
"""

"""Word lists of English that retrieval uses. Data; the functions are in `text.py`."""

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

NEGATIONS = "not no never nobody nothing none neither nor without hardly noone cannot"

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
favourite favorite favourites favorites; color colour colours colors; silk silken; wood wooden; gold golden;
gray grey; bus buses
"""

# Words that a question may use for each other: they share one stem, the first word's.
SYNONYMS = """
begin start commence; hear listen sound; decide determine resolve; end finish stop conclude; big large great;
quick fast rapid; house home; happen occur; picture image photo photograph; help assist; answer reply; wish
desire; buy purchase; carry bring; reach arrive; choose select; hard difficult; rich wealthy; small little;
sick ill; talk speech; hot heat
"""

# Words of related meaning: weaker than synonyms, they count only beside words that are equal.
RELATED = """
proud pride; many plenty numerous several; refuse reject decline; offer propose suggest give; want wish desire
hope; eat swallow dine consume; cook bake prepare; repair fix mend; destroy ruin wreck; damage harm hurt
injure; throw toss fling cast; get obtain receive acquire fetch; live dwell reside stay remain; leave depart;
return back; travel walk journey wander; hurry hasten rush hastily; answer reply respond; ask request beg
demand; order command; notice spot observe; find discover see notice; hide conceal; reveal show; teach
instruct train; understand realise; like love enjoy prefer favorite; hate dislike; fear afraid scared
frightened; angry furious anger; happy glad joyful pleased delighted content joy; sad unhappy sorrow; tired
weary exhausted; die death dead; kill murder slay; win victory defeat; grow increase rise raise climb; fall
drop decrease decline reduce shrink; improve better upgrade; change alter become turn transform; create make
build construct produce; use employ utilise; protect guard defend; save rescue; lift raise; put place lay;
close shut; cut chop slice; break smash crack; fill full; contain include hold; cause reason because; meet
encounter; pay cost price spend charge; send ship mail deliver; choose pick; try attempt; allow let permit;
prevent forbid; agree accept consent; promise swear; cry weep; smell odor scent; taste flavor; woman wife
lady; man husband gentleman; boy son lad; girl daughter; child kid; doctor physician; car automobile vehicle;
boat ship vessel; road street path; sea ocean; hill mountain; rock stone; money cash; job work task; company
firm business; boss manager chief; country nation; people folk citizen; illness sickness disease ill sick;
error mistake fault bug; problem issue trouble difficulty; result outcome; goal aim purpose target; plan
scheme; idea thought notion; speed fast pace; size large; place location spot site; part piece portion
section; amount number quantity; way method approach manner; software program application; meeting conference;
test exam trial experiment; speak address talk; surprised amazed astonished amazement; pretty beautiful;
clever smart wise
"""

# Words that sound alike, which a speech recogniser may confuse. The commonest words are left out.
HOMOPHONES = """
threw through; shone shown; hole whole; knight night; son sun; flour flower; meat meet; peace piece; plain
plane; pair pear pare; bear bare; deer dear; fair fare; hair hare; heel heal; mail male; main mane; pain pane;
pail pale; rain reign rein; role roll; sail sale; seam seem; sight site cite; soul sole; stair stare; steal
steel; tail tale; tide tied; toe tow; waist waste; wait weight; war wore; board bored; brake break; ceiling
sealing; cell sell; coarse course; council counsel; creak creek; feat feet; gait gate; groan grown; guessed
guest; hail hale; hall haul; higher hire; horse hoarse; idle idol; isle aisle; key quay; lead led; leak leek;
loan lone; medal meddle; miner minor; missed mist; moan mown; morning mourning; muscle mussel; oar ore;
patience patients; pause paws; peal peel; pedal peddle; plum plumb; pole poll; pour poor pore; pray prey;
principal principle; prince prints; profit prophet; rap wrap; raise rays; root route; sauce source; shore
sure; side sighed; soar sore; stake steak; stationary stationery; steel steal; straight strait; sweet suite;
team teem; tea tee; thrown throne; vain vein vane; vale veil; wail whale; wade weighed; wine whine; yoke yolk;
bread bred; berry bury; bough bow; colonel kernel; currant current; dough doe; fir fur; flea flee; hoard
horde; jam jamb; ladder latter; lesson lessen; lightning lightening; manner manor; marshal martial; naval
navel; pact packed; pallet palate; pier peer; presence presents; quarts quartz; racket racquet; rose rows;
rude rued; sheer shear; slay sleigh; sort sought; staid stayed; tear tier; taught taut; tacks tax; ton tun;
urn earn; warn worn; blew blue; aloud allowed; alter altar; air heir; ball bawl; band banned; base bass; beach
beech; beat beet; bell belle; birth berth; bolder boulder; borough burrow; bridal bridle; broach brooch; road
rowed; scent cent
"""

# Words of questions about the stream itself: they say where to look, not what for.
QUESTION = """
say said speaker speakers speak spoken talk talking mention mentioned reader narrator presenter lecturer host
voiceover name named call called tell told slide slides screen show shown display displayed picture image
photo video stream scene frame clip camera visible lecture presentation title titled heading headline text
written write read word words sentence phrase speech appear appeared see seen view viewer page line question
answer kind sort type thing things time times moment point currently now yet ever ago far second seconds
minute minutes timestamp mark audience recording transcript caption captions mean happen there according
anybody anyone anything somebody someone something everything nothing nobody anywhere somewhere everywhere
"""

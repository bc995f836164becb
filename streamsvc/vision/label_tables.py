"""Label vocabularies of the vision models, and what their labels are. Data only.

Names are separated by "; " and lower case. `names_of` splits them.
"""

from __future__ import annotations


def names_of(text: str) -> list[str]:
    """Split one entry of a table into its names."""
    return [" ".join(name.split()) for name in text.split(";")]


# The 80 labels of COCO (the detector) by group.
COCO = {
    "person": "person",
    "animal": "bird; cat; dog; horse; sheep; cow; elephant; bear; zebra; giraffe",
    "vehicle": "bicycle; car; motorcycle; airplane; bus; train; truck; boat",
    "food": "banana; apple; sandwich; orange; broccoli; carrot; hot dog; pizza; donut; cake",
    "furniture": "chair; couch; bed; dining table; bench; toilet",
    "device": """
        tv; laptop; mouse; remote; keyboard; cell phone; microwave; oven; toaster; refrigerator; hair
        drier
    """,
    "dish": "cup; bowl; bottle; wine glass; fork; knife; spoon",
    "thing": """
        traffic light; fire hydrant; stop sign; parking meter; backpack; umbrella; handbag; tie;
        suitcase; frisbee; skis; snowboard; sports ball; kite; baseball bat; baseball glove; skateboard;
        surfboard; tennis racket; potted plant; sink; book; clock; vase; scissors; teddy bear;
        toothbrush
    """,
}

# ImageNet labels (the tagger) whose last word does not say what they are, by group; WordNet's order.
IMAGENET_GROUPS = {
    "dog": """
        chihuahua; japanese spaniel; maltese dog; pekinese; shih-tzu; blenheim spaniel; papillon; toy
        terrier; rhodesian ridgeback; afghan hound; basset; beagle; bloodhound; bluetick; black-and-tan
        coonhound; walker hound; english foxhound; redbone; borzoi; irish wolfhound; italian greyhound;
        whippet; ibizan hound; norwegian elkhound; otterhound; saluki; scottish deerhound; weimaraner;
        staffordshire bullterrier; american staffordshire terrier; bedlington terrier; border terrier;
        kerry blue terrier; irish terrier; norfolk terrier; norwich terrier; yorkshire terrier;
        wire-haired fox terrier; lakeland terrier; sealyham terrier; airedale; cairn; australian
        terrier; dandie dinmont; boston bull; miniature schnauzer; giant schnauzer; standard schnauzer;
        scotch terrier; tibetan terrier; silky terrier; soft-coated wheaten terrier; west highland white
        terrier; lhasa; flat-coated retriever; curly-coated retriever; golden retriever; labrador
        retriever; chesapeake bay retriever; german short-haired pointer; vizsla; english setter; irish
        setter; gordon setter; brittany spaniel; clumber; english springer; welsh springer spaniel;
        cocker spaniel; sussex spaniel; irish water spaniel; kuvasz; schipperke; groenendael; malinois;
        briard; kelpie; komondor; old english sheepdog; shetland sheepdog; collie; border collie;
        bouvier des flandres; rottweiler; german shepherd; doberman; miniature pinscher; greater swiss
        mountain dog; bernese mountain dog; appenzeller; entlebucher; bull mastiff; tibetan mastiff;
        french bulldog; great dane; saint bernard; eskimo dog; malamute; siberian husky; dalmatian;
        affenpinscher; basenji; pug; leonberg; newfoundland; great pyrenees; samoyed; pomeranian; chow;
        keeshond; brabancon griffon; pembroke; cardigan; toy poodle; miniature poodle; standard poodle;
        mexican hairless; boxer
    """,
    "cat": "tabby; tiger cat; persian cat; siamese cat; egyptian cat; tabby cat",
    "bird": """
        cock; hen; ostrich; brambling; goldfinch; house finch; junco; indigo bunting; robin; bulbul;
        jay; magpie; chickadee; water ouzel; bald eagle; vulture; great grey owl; black grouse;
        ptarmigan; ruffed grouse; prairie chicken; peacock; quail; partridge; african grey; macaw;
        sulphur-crested cockatoo; lorikeet; coucal; bee eater; hornbill; hummingbird; jacamar; toucan;
        drake; red-breasted merganser; goose; black swan; white stork; black stork; spoonbill; flamingo;
        little blue heron; american egret; bittern; limpkin; european gallinule; american coot; bustard;
        ruddy turnstone; red-backed sandpiper; redshank; dowitcher; oystercatcher; pelican; king
        penguin; albatross
    """,
    "fish": """
        tench; goldfish; great white shark; tiger shark; hammerhead; electric ray; stingray; barracouta;
        eel; coho; rock beauty; anemone fish; sturgeon; gar; lionfish; puffer
    """,
    "frog": "bullfrog; tree frog; tailed frog",
    "turtle": "loggerhead; leatherback turtle; mud turtle; terrapin; box turtle",
    "lizard": """
        banded gecko; common iguana; american chameleon; whiptail; agama; frilled lizard; alligator
        lizard; gila monster; green lizard; african chameleon; komodo dragon
    """,
    "snake": """
        thunder snake; ringneck snake; hognose snake; green snake; king snake; garter snake; water
        snake; vine snake; night snake; boa constrictor; rock python; indian cobra; green mamba; sea
        snake; horned viper; diamondback; sidewinder
    """,
    "spider": "black and gold garden spider; barn spider; garden spider; black widow; tarantula; wolf spider",
    "bear": "brown bear; american black bear; ice bear; sloth bear",
    "insect": """
        tiger beetle; ladybug; ground beetle; long-horned beetle; leaf beetle; dung beetle; rhinoceros
        beetle; weevil; bee; ant; grasshopper; cricket; walking stick; cockroach; mantis; cicada;
        leafhopper; lacewing; dragonfly; damselfly; cabbage butterfly; sulphur butterfly; lycaenid
    """,
    "monkey": """
        siamang; guenon; patas; baboon; macaque; langur; colobus; proboscis monkey; marmoset; capuchin;
        howler monkey; titi; spider monkey; squirrel monkey
    """,
    "ape": "orangutan; gorilla; chimpanzee; gibbon",
    "wolf": "timber wolf; white wolf; red wolf",
    "fox": "red fox; kit fox; arctic fox; grey fox",
    "elephant": "indian elephant; african elephant; tusker",
    "rabbit": "wood rabbit; hare; angora",
    "crab": "dungeness crab; rock crab; fiddler crab; king crab",
    "animal": """
        echidna; platypus; wallaby; koala; wombat; grey whale; killer whale; dugong; sea lion; coyote;
        dingo; dhole; african hunting dog; hyena; cougar; lynx; leopard; snow leopard; jaguar; lion;
        tiger; cheetah; mongoose; meerkat; hamster; porcupine; fox squirrel; marmot; beaver; guinea pig;
        sorrel; zebra; hog; wild boar; warthog; hippopotamus; ox; water buffalo; bison; bighorn; ibex;
        hartebeest; impala; gazelle; arabian camel; llama; weasel; mink; polecat; black-footed ferret;
        otter; skunk; badger; armadillo; three-toed sloth; madagascar cat; indri; lesser panda; giant
        panda
    """,
    "car": "beach wagon; cab; convertible; jeep; limousine; minivan; model t; racer; sports car; ambulance",
    "truck": "fire engine; garbage truck; moving van; pickup; tow truck; trailer truck",
    "bus": "minibus; school bus; trolleybus",
    "train": "bullet train; electric locomotive; freight car; passenger car; steam locomotive; streetcar",
    "airplane": "airliner; warplane",
    "boat": """
        canoe; catamaran; container ship; fireboat; gondola; lifeboat; liner; schooner; speedboat;
        trimaran; yawl
    """,
    "ship": "aircraft carrier; container ship; liner; schooner",
    "motorcycle": "moped; motor scooter",
    "bicycle": "bicycle-built-for-two; mountain bike",
    "rocket": "missile; projectile",
    "coffee": "espresso",
    "phone": "cellular telephone; dial telephone; pay-phone; cell phone",
    "computer": "desktop computer; hand-held computer; laptop; notebook",
    "tv": "television",
    "guitar": "acoustic guitar; electric guitar",
    "piano": "grand piano; upright",
    "instrument": """
        accordion; acoustic guitar; banjo; bassoon; cello; cornet; drum; electric guitar; flute; french
        horn; gong; grand piano; harmonica; harp; marimba; oboe; ocarina; organ; panpipe; sax; steel
        drum; trombone; upright; violin
    """,
    "person": "ballplayer; groom; scuba diver",
    "drink": "coffee; espresso; red wine; eggnog",
    "food": """
        guacamole; consomme; trifle; ice cream; ice lolly; french loaf; bagel; pretzel; cheeseburger;
        hotdog; mashed potato; carbonara; meat loaf; potpie; burrito
    """,
    "fruit": """
        granny smith; strawberry; lemon; fig; pineapple; jackfruit; custard apple; pomegranate; banana;
        apple; orange
    """,
    "vegetable": """
        head cabbage; cauliflower; zucchini; cucumber; artichoke; bell pepper; cardoon; broccoli; carrot
    """,
    "mushroom": "agaric; gyromitra; stinkhorn; earthstar; bolete",
    "building": "barn; boathouse; castle; church; greenhouse; library; monastery; mosque; palace; stupa",
    "page of text": "web site; menu; book jacket; crossword puzzle",
    "mountain": "alp; volcano",
    "shore": "seashore; lakeside; sandbar",
    "vehicle": """
        space shuttle; tank; tractor; forklift; go-kart; golfcart; snowmobile; tricycle; unicycle;
        submarine
    """,
}

# Groups whose name does not replace the name of a member: a "banjo" is not called "instrument".
COLLECTIVE_GROUPS = frozenset(
    names_of("animal; building; drink; food; fruit; instrument; person; ship; vegetable; vehicle")
)

# Synonyms of labels and groups.
SYNONYMS = {
    "person": "somebody; anybody; someone; anyone; human; pedestrian",
    "bicycle": "bike; cycle",
    "motorcycle": "motorbike",
    "car": "automobile",
    "airplane": "plane; aeroplane; aircraft; jet",
    "tv": "television; screen",
    "couch": "sofa",
    "cell phone": "phone; cellphone; smartphone; mobile",
    "phone": "telephone",
    "computer": "pc",
    "refrigerator": "fridge",
    "dining table": "table",
    "cup": "mug",
    "cat": "kitten; kitty",
    "dog": "puppy",
    "donut": "doughnut",
    "truck": "lorry",
    "drink": "beverage",
    "handbag": "purse",
    "potted plant": "plant",
    "sports ball": "ball",
    "animal": "creature; pet",
    "coffee": "espresso",
    "train": "locomotive",
}

# Members by wider group.
WIDER_GROUPS = {
    "animal": """
        dog; cat; bird; fish; frog; turtle; lizard; snake; spider; bear; insect; monkey; ape; wolf; fox;
        elephant; rabbit; crab
    """,
    "vehicle": "car; truck; bus; train; airplane; boat; ship; motorcycle; bicycle; rocket",
    "food": "fruit; vegetable; pizza",
    "drink": "coffee",
    "computer": "laptop",
    "device": "computer; phone",
    "instrument": "guitar; piano",
}

# What shows that a picture is of a place: places -> labels and groups.
PLACES = {
    "road; street; highway; motorway; lane": "car; truck; bus; motorcycle; bicycle; traffic light; stop sign",
    "table; desk; counter": "cup; bowl; bottle; wine glass; laptop; book; drink; food; dish; keyboard; vase",
    "sky; air": "airplane; bird; kite; rocket",
    "water; sea; lake; river": "boat; ship",
}

# Names of which the detector knows only some members, or only a wider group: their absence cannot be stated.
NARROW = frozenset(
    names_of(
        """
        thing; object; dish; device; food; fruit; vegetable; furniture; computer; phone; drink;
        screen; pet; creature; mobile; plant; ball; puppy; kitten; kitty
        """
    )
)

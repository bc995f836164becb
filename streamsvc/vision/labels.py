"""What the vision models' labels mean in plain words: "Egyptian cat" is a cat and an animal, "missile" is how a rocket is seen.

Labels are the 80 names of COCO (the detector) and the 1000 of ImageNet (the tagger, names up to the first comma). Pure.
That something is *not* shown can be said only of what the detector knows (`detectable`): a tag names one thing of a whole
picture, so its absence tells nothing.
"""

from __future__ import annotations

from functools import lru_cache

from streamsvc.timeline.text import stem, tokens

# The detector's names by what they are.
_COCO = {
    "person": "person",
    "animal": "bird cat dog horse sheep cow elephant bear zebra giraffe",
    "vehicle": "bicycle car motorcycle airplane bus train truck boat",
    "food": "banana apple sandwich orange broccoli carrot hot-dog pizza donut cake",
    "furniture": "chair couch bed dining-table bench toilet",
    "device": "tv laptop mouse remote keyboard cell-phone microwave oven toaster refrigerator hair-drier",
    "dish": "cup bowl bottle wine-glass fork knife spoon",
    "thing": (
        "traffic-light fire-hydrant stop-sign parking-meter backpack umbrella handbag tie suitcase frisbee skis snowboard sports-ball kite "
        "baseball-bat baseball-glove skateboard surfboard tennis-racket potted-plant sink book clock vase scissors teddy-bear toothbrush"
    ),
}
_DETECTED = {name.replace("-", " "): group for group, names in _COCO.items() for name in names.split()}

# ImageNet's names that do not say by their last word what they are. Order: WordNet's, as in the label file.
_GROUPS = {
    "dog": (
        "chihuahua; japanese spaniel; maltese dog; pekinese; shih-tzu; blenheim spaniel; papillon; toy terrier; rhodesian ridgeback; afghan hound; basset; "
        "beagle; bloodhound; bluetick; black-and-tan coonhound; walker hound; english foxhound; redbone; borzoi; irish wolfhound; italian greyhound; whippet; "
        "ibizan hound; norwegian elkhound; otterhound; saluki; scottish deerhound; weimaraner; staffordshire bullterrier; american staffordshire terrier; "
        "bedlington terrier; border terrier; kerry blue terrier; irish terrier; norfolk terrier; norwich terrier; yorkshire terrier; wire-haired fox terrier; "
        "lakeland terrier; sealyham terrier; airedale; cairn; australian terrier; dandie dinmont; boston bull; miniature schnauzer; giant schnauzer; standard "
        "schnauzer; scotch terrier; tibetan terrier; silky terrier; soft-coated wheaten terrier; west highland white terrier; lhasa; flat-coated retriever; "
        "curly-coated retriever; golden retriever; labrador retriever; chesapeake bay retriever; german short-haired pointer; vizsla; english setter; irish "
        "setter; gordon setter; brittany spaniel; clumber; english springer; welsh springer spaniel; cocker spaniel; sussex spaniel; irish water spaniel; "
        "kuvasz; schipperke; groenendael; malinois; briard; kelpie; komondor; old english sheepdog; shetland sheepdog; collie; border collie; bouvier des "
        "flandres; rottweiler; german shepherd; doberman; miniature pinscher; greater swiss mountain dog; bernese mountain dog; appenzeller; entlebucher; bull "
        "mastiff; tibetan mastiff; french bulldog; great dane; saint bernard; eskimo dog; malamute; siberian husky; dalmatian; affenpinscher; basenji; pug; "
        "leonberg; newfoundland; great pyrenees; samoyed; pomeranian; chow; keeshond; brabancon griffon; pembroke; cardigan; toy poodle; miniature poodle; "
        "standard poodle; mexican hairless; boxer"
    ),
    "cat": "tabby; tiger cat; persian cat; siamese cat; egyptian cat; tabby cat",
    "bird": (
        "cock; hen; ostrich; brambling; goldfinch; house finch; junco; indigo bunting; robin; bulbul; jay; magpie; chickadee; water ouzel; bald eagle; vulture; "
        "great grey owl; black grouse; ptarmigan; ruffed grouse; prairie chicken; peacock; quail; partridge; african grey; macaw; sulphur-crested cockatoo; "
        "lorikeet; coucal; bee eater; hornbill; hummingbird; jacamar; toucan; drake; red-breasted merganser; goose; black swan; white stork; black stork; "
        "spoonbill; flamingo; little blue heron; american egret; bittern; limpkin; european gallinule; american coot; bustard; ruddy turnstone; red-backed "
        "sandpiper; redshank; dowitcher; oystercatcher; pelican; king penguin; albatross"
    ),
    "fish": (
        "tench; goldfish; great white shark; tiger shark; hammerhead; electric ray; stingray; barracouta; eel; coho; rock beauty; anemone fish; sturgeon; gar; "
        "lionfish; puffer"
    ),
    "frog": "bullfrog; tree frog; tailed frog",
    "turtle": "loggerhead; leatherback turtle; mud turtle; terrapin; box turtle",
    "lizard": (
        "banded gecko; common iguana; american chameleon; whiptail; agama; frilled lizard; alligator lizard; gila monster; green lizard; african chameleon; "
        "komodo dragon"
    ),
    "snake": (
        "thunder snake; ringneck snake; hognose snake; green snake; king snake; garter snake; water snake; vine snake; night snake; boa constrictor; rock "
        "python; indian cobra; green mamba; sea snake; horned viper; diamondback; sidewinder"
    ),
    "spider": "black and gold garden spider; barn spider; garden spider; black widow; tarantula; wolf spider",
    "bear": "brown bear; american black bear; ice bear; sloth bear",
    "insect": (
        "tiger beetle; ladybug; ground beetle; long-horned beetle; leaf beetle; dung beetle; rhinoceros beetle; weevil; bee; ant; grasshopper; cricket; walking "
        "stick; cockroach; mantis; cicada; leafhopper; lacewing; dragonfly; damselfly; cabbage butterfly; sulphur butterfly; lycaenid"
    ),
    "monkey": "siamang; guenon; patas; baboon; macaque; langur; colobus; proboscis monkey; marmoset; capuchin; howler monkey; titi; spider monkey; squirrel monkey",
    "ape": "orangutan; gorilla; chimpanzee; gibbon",
    "wolf": "timber wolf; white wolf; red wolf",
    "fox": "red fox; kit fox; arctic fox; grey fox",
    "elephant": "indian elephant; african elephant; tusker",
    "rabbit": "wood rabbit; hare; angora",
    "crab": "dungeness crab; rock crab; fiddler crab; king crab",
    "animal": (
        "echidna; platypus; wallaby; koala; wombat; grey whale; killer whale; dugong; sea lion; coyote; dingo; dhole; african hunting dog; hyena; cougar; lynx; "
        "leopard; snow leopard; jaguar; lion; tiger; cheetah; mongoose; meerkat; hamster; porcupine; fox squirrel; marmot; beaver; guinea pig; sorrel; zebra; "
        "hog; wild boar; warthog; hippopotamus; ox; water buffalo; bison; bighorn; ibex; hartebeest; impala; gazelle; arabian camel; llama; weasel; mink; "
        "polecat; black-footed ferret; otter; skunk; badger; armadillo; three-toed sloth; madagascar cat; indri; lesser panda; giant panda"
    ),
    "car": "beach wagon; cab; convertible; jeep; limousine; minivan; model t; racer; sports car; ambulance",
    "truck": "fire engine; garbage truck; moving van; pickup; tow truck; trailer truck",
    "bus": "minibus; school bus; trolleybus",
    "train": "bullet train; electric locomotive; freight car; passenger car; steam locomotive; streetcar",
    "airplane": "airliner; warplane",
    "boat": "canoe; catamaran; container ship; fireboat; gondola; lifeboat; liner; schooner; speedboat; trimaran; yawl",
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
    "instrument": (
        "accordion; acoustic guitar; banjo; bassoon; cello; cornet; drum; electric guitar; flute; french horn; gong; grand piano; harmonica; harp; "
        "marimba; oboe; ocarina; organ; panpipe; sax; steel drum; trombone; upright; violin"
    ),
    "person": "ballplayer; groom; scuba diver",
    "drink": "coffee; espresso; red wine; eggnog",
    "food": "guacamole; consomme; trifle; ice cream; ice lolly; french loaf; bagel; pretzel; cheeseburger; hotdog; mashed potato; carbonara; meat loaf; potpie; burrito",
    "fruit": "granny smith; strawberry; lemon; fig; pineapple; jackfruit; custard apple; pomegranate; banana; apple; orange",
    "vegetable": "head cabbage; cauliflower; zucchini; cucumber; artichoke; bell pepper; cardoon; broccoli; carrot",
    "mushroom": "agaric; gyromitra; stinkhorn; earthstar; bolete",
    "building": "barn; boathouse; castle; church; greenhouse; library; monastery; mosque; palace; stupa",
    "page of text": "web site; menu; book jacket; crossword puzzle",
    "mountain": "alp; volcano",
    "shore": "seashore; lakeside; sandbar",
    "vehicle": "space shuttle; tank; tractor; forklift; go-kart; golfcart; snowmobile; tricycle; unicycle; submarine",
}

# What else people call these things.
_CALLED = {
    "person": "somebody anybody someone anyone human pedestrian",
    "bicycle": "bike cycle",
    "motorcycle": "motorbike",
    "car": "automobile",
    "airplane": "plane aeroplane aircraft jet",
    "tv": "television screen",
    "couch": "sofa",
    "cell phone": "phone cellphone smartphone mobile",
    "phone": "telephone",
    "computer": "pc",
    "refrigerator": "fridge",
    "dining table": "table",
    "cup": "mug",
    "cat": "kitten kitty",
    "dog": "puppy",
    "donut": "doughnut",
    "truck": "lorry",
    "drink": "beverage",
    "handbag": "purse",
    "potted plant": "plant",
    "sports ball": "ball",
    "animal": "creature pet",
    "coffee": "espresso",
    "train": "locomotive",
}

# Groups that are part of a wider one, and where a thing of the picture tells the place.
_WIDER = {
    **dict.fromkeys(
        [
            "dog",
            "cat",
            "bird",
            "fish",
            "frog",
            "turtle",
            "lizard",
            "snake",
            "spider",
            "bear",
            "insect",
            "monkey",
            "ape",
            "wolf",
            "fox",
            "elephant",
            "rabbit",
            "crab",
        ],
        "animal",
    ),
    **dict.fromkeys(
        ["car", "truck", "bus", "train", "airplane", "boat", "ship", "motorcycle", "bicycle", "rocket"],
        "vehicle",
    ),
    **dict.fromkeys(["fruit", "vegetable", "pizza"], "food"),
    "coffee": "drink",
    "laptop": "computer",
    "computer": "device",
    "phone": "device",
    "guitar": "instrument",
    "piano": "instrument",
}
_PLACES = {
    **dict.fromkeys(
        ["road", "street", "highway", "motorway", "lane"],
        ("car", "truck", "bus", "motorcycle", "bicycle", "traffic light", "stop sign"),
    ),
    **dict.fromkeys(
        ["table", "desk", "counter"],
        (
            "cup",
            "bowl",
            "bottle",
            "wine glass",
            "laptop",
            "book",
            "drink",
            "food",
            "dish",
            "keyboard",
            "vase",
        ),
    ),
    **dict.fromkeys(["sky", "air"], ("airplane", "bird", "kite", "rocket")),
    **dict.fromkeys(["water", "sea", "lake", "river"], ("boat", "ship")),
}
_PLACE_STEMS = {stem(place): members for place, members in _PLACES.items()}
CATEGORIES = frozenset(
    stem(word) for word in (*_WIDER.values(), "furniture", "object", "thing", "dish", "dessert", "building")
)


def _key(words: str) -> str:
    return " ".join(stem(token) for token in tokens(words.replace("-", " ")))


def _tables() -> tuple[dict[str, frozenset[str]], dict[str, str], frozenset[str]]:
    kinds: dict[str, set[str]] = {}
    plain: dict[str, str] = {}
    for group, names in _GROUPS.items():
        for name in names.split("; "):
            kinds.setdefault(_key(name), set()).add(group)
            if group not in (
                "drink",
                "food",
                "fruit",
                "vegetable",
                "instrument",
                "animal",
                "building",
                "vehicle",
                "ship",
                "person",
            ):
                plain.setdefault(_key(name), group)
    for name, group in _DETECTED.items():
        kinds.setdefault(_key(name), set()).add(group)
    for name, called in _CALLED.items():
        kinds.setdefault(_key(name), set()).update(called.split())
    return (
        {name: frozenset(found) for name, found in kinds.items()},
        plain,
        frozenset(kinds) | {_key(g) for g in _GROUPS},
    )


_KINDS, _PLAIN, _ = _tables()


@lru_cache(maxsize=4096)
def kinds(label: str) -> frozenset[str]:
    """Everything that a label may be called, as stems of phrases: itself, its last word, its groups and their wider groups."""
    name = label.split(",")[0]
    key = _key(name)
    found = {key}
    if " " in key and key not in _DETECTED_KEYS:
        found.add(key.split(" ")[-1])  # "coffee mug" is a mug
    frontier = list(found)
    while frontier:
        part = frontier.pop()
        wider = {_key(group) for group in _KINDS.get(part, ())}
        for group in _GROUPS:
            if _key(group) == part and group in _WIDER:
                wider.add(_key(_WIDER[group]))
        if part in _WIDER_KEYS:
            wider.add(_WIDER_KEYS[part])
        frontier += wider - found
        found |= wider
    return frozenset(found)


_DETECTED_KEYS = frozenset(_key(name) for name in _DETECTED)
_WIDER_KEYS = {_key(name): _key(group) for name, group in _WIDER.items()}


def is_a(label: str, phrase: str) -> bool:
    """Whether a label of a model answers to a word or phrase of a question."""
    key = _key(phrase)
    return key in kinds(label) or key in ("object", "thing")


def plain(label: str) -> str:
    """The plain name of a label: "Egyptian cat" -> "cat"; what has none keeps its own."""
    name = label.split(",")[0].strip()
    key = _key(name)
    if key in _PLAIN:
        return _PLAIN[key]
    return name.lower() if key in _DETECTED_KEYS else name


@lru_cache(maxsize=4096)
def known(phrase: str) -> bool:
    """Whether a phrase names something that a model here could name, as far as our tables tell."""
    key = _key(phrase)
    return key in _ALL


@lru_cache(maxsize=4096)
def detectable(phrase: str) -> bool:
    """Whether the detector would have boxed it: only then its absence may be stated. True for a group only where the detector knows its usual members."""
    key = _key(phrase)
    return any(key in kinds(name) for name in _DETECTED) and key not in _NARROW


# Groups and names of which the detector knows only a few members or a wider kind: their absence tells nothing.
_NARROW = frozenset(
    _key(word)
    for word in [
        "thing",
        "object",
        "dish",
        "device",
        "food",
        "fruit",
        "vegetable",
        "furniture",
        "computer",
        "phone",
        "drink",
        "screen",
        "pet",
        "creature",
        "mobile",
        "plant",
        "ball",
        "puppy",
        "kitten",
        "kitty",
    ]
)
_ALL = frozenset(
    key
    for name in (*_DETECTED, *_GROUPS, *(n for names in _GROUPS.values() for n in names.split("; ")))
    for key in kinds(name)
)


def at_place(place: str) -> tuple[str, ...]:
    """What a place would hold that the models can see, or nothing for a place of which no thing tells."""
    return _PLACE_STEMS.get(stem(place.lower()), ())


def article(name: str) -> str:
    """The name with "a" or "an", or without where it cannot be counted."""
    if name in ("coffee", "scissors", "skis", "broccoli", "food") or name.endswith("site"):
        return name
    return ("an " if name[:1].lower() in "aeiou" else "a ") + name


def plural(name: str) -> str:
    """The plural of a plain name."""
    if name == "person":
        return "persons"
    if name.endswith(("skis", "scissors")) or name in ("sheep", "fish"):
        return name
    if name == "mouse":
        return "mice"
    if name == "knife":
        return "knives"
    return name + "es" if name.endswith(("s", "x", "ch", "sh")) else name + "s"


def counted(name: str, count: int) -> str:
    """As in "two persons", "a car"."""
    words = (
        "no",
        "",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    )
    return article(name) if count == 1 else f"{words[count] if count < len(words) else count} {plural(name)}"

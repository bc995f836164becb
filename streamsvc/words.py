"""The words that a text is searched by: content words only, cut to their stems, near synonyms joined. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = re.compile(r"[a-z0-9]+(?:['’][a-z]+)?(?:[.:]\d+)?", re.ASCII)
_HYPHEN = re.compile(r"(?<=[a-z])[-‐‑](?=[a-z])")

# They tell nothing of what a text is about.
_STOP = """
a an the and or but nor so if then than that this these those there here it its he him his she her hers they them their theirs we us our
ours you your yours i me my mine who whom whose which what when where why how is are was were be been being am do does did done doing has
have had having will would shall should can could may might must of in on at to for from by with about into onto over under out up down
off as not no yes any some all each every ever just only also too very much more most such own same s t ll ve re d m don isn wasn didn
doesn hasn haven hadn couldn wouldn while during between until since far please now"""
STOP = frozenset(_STOP.split())

# Irregular forms that no suffix rule joins (a general list of common English verbs and nouns).
_IRREGULAR = {
    form: base
    for base, forms in {
        "see": "saw seen sees", "go": "went gone goes", "say": "said says", "tell": "told", "speak": "spoke spoken", "think": "thought",
        "come": "came", "become": "became", "give": "gave given", "take": "took taken", "find": "found", "hear": "heard", "keep": "kept",
        "leave": "left", "know": "knew known", "feel": "felt", "bring": "brought", "buy": "bought", "begin": "began begun beginning",
        "eat": "ate eaten", "drink": "drank drunk", "drive": "drove driven", "write": "wrote written", "ride": "rode ridden",
        "rise": "rose risen", "run": "ran", "sing": "sang sung", "sit": "sat", "sleep": "slept", "stand": "stood", "steal": "stole stolen",
        "swim": "swam swum", "teach": "taught", "throw": "threw thrown", "understand": "understood", "wear": "wore worn", "win": "won",
        "fall": "fell fallen", "fight": "fought", "fly": "flew flown flies", "forget": "forgot forgotten", "get": "got gotten",
        "grow": "grew grown", "hold": "held", "lose": "lost", "make": "made", "mean": "meant", "meet": "met", "pay": "paid",
        "sell": "sold", "send": "sent", "show": "shown", "shake": "shook shaken", "build": "built", "catch": "caught",
        "choose": "chose chosen", "break": "broke broken", "draw": "drew drawn", "dwell": "dwelt", "learn": "learnt", "dream": "dreamt",
        "die": "dying died", "lie": "lay lain lying", "lead": "led", "spend": "spent", "strike": "struck", "carry": "carried",
        "man": "men", "woman": "women", "child": "children", "person": "people persons", "foot": "feet", "tooth": "teeth", "mouse": "mice",
        "life": "lives", "knife": "knives", "wife": "wives", "favor": "favour favourite favorite favourites favorites",
        "color": "colour colours colors", "silk": "silken", "wood": "wooden", "gold": "golden", "gray": "grey", "bus": "buses",
    }.items()
    for form in forms.split()
}  # fmt: skip

# Words so near to each other that a question may use one for another.
_SYNONYMS = (
    "begin start commence", "hear listen sound", "decide determine resolve", "end finish stop conclude", "big large great",
    "quick fast rapid", "house home", "happen occur", "picture image photo photograph", "help assist", "answer reply", "wish desire",
    "buy purchase", "carry bring", "reach arrive", "choose select", "hard difficult", "rich wealthy", "small little", "sick ill",
    "talk speech", "hot heat",
)  # fmt: skip


def tokens(text: str) -> list[str]:
    """Words and numbers in lower case. A hyphen joins: "stone-cutter" gives "stonecutter"."""
    return _TOKEN.findall(_HYPHEN.sub("", text.lower().replace("’", "'").replace("‘", " ")))


@lru_cache(maxsize=32_768)
def terms(text: str) -> tuple[str, ...]:
    """The stems of the content words, in order. A compound with a hyphen gives its parts too, so that either spelling matches."""
    parts = _HYPHEN.findall(text.lower())
    found = [stem(token) for token in tokens(text) if token not in STOP]
    if parts:
        found += [stem(part) for part in re.findall(r"[a-z]+(?=[-‐‑][a-z])|(?<=[a-z][-‐‑])[a-z]+", text.lower()) if part not in STOP]
    return tuple(found)


@lru_cache(maxsize=32_768)
def stem(word: str) -> str:
    """A light stem: plural, -ing, -ed, -ly and common irregular forms; British and American spelling alike; near synonyms joined."""
    base = _base(word.removesuffix("'s").replace("'", ""))
    return _SAME.get(base, base)


def _base(word: str) -> str:
    word = _IRREGULAR.get(word, word)
    return _suffix(word) if len(word) > 3 and not word[0].isdigit() else word


def _suffix(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for end in ("ing", "ed"):
        root = word.removesuffix(end)
        if root != word and len(root) > 2 and re.search("[aeiouy]", root):
            if root[-1] == root[-2] and root[-1] not in "lsz":
                root = root[:-1]  # stopped
            word = root[:-1] + "y" if root.endswith("i") else root
            break
    if word.endswith("ly") and len(word) > 5:
        word = word[:-2]
    word = word.replace("our", "or") if word.endswith("our") and len(word) > 5 else word
    word = re.sub("is(e|ation)?$", r"iz\1", word) if len(word) > 6 and word.endswith(("ise", "isation")) else word
    word = _IRREGULAR.get(word, word)
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


_SAME = {_base(word): _base(group.split()[0]) for group in _SYNONYMS for word in group.split()}

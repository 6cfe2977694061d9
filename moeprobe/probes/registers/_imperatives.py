"""Imperatives: which clauses of an English sentence tell the reader to do something."""

import re

from moeprobe.probes.registers._word_sets import word_set

# Verbs that procedures are made of and that seldom open a sentence as a noun.
_PROCEDURAL = (
    "pass follow add adjust affix align allow apply arrange assemble attach avoid bake beat begin bend blend boil "
    "break bring brush build bury carry cast choose chop clean clear clip clone combine compare complete connect "
    "continue convert copy cover create cream crush deal decide define delete descend dig dip disconnect dissolve "
    "divide download drain drag draw dry edit empty enable disable ensure enter erase execute extend fasten "
    "feed fill find finish fit fix flip fry gather get give glue go grab grate grease grill grind hang heat hold "
    "identify import export increase decrease inhale exhale breathe insert inspect install invert join keep kneel "
    "knead knit lay lead leave let lever lift lightly list locate log loosen lower make mark marinate mash measure "
    "melt memorize mince moisten mount move multiply navigate obtain open pack paint paste peel perform pick pinch "
    "place plug point poke polish position pour practice practise preheat prepare prick prise proceed provide pull "
    "pump punch purl push put raise reach read record reduce refill refrigerate release reload remove rename repeat "
    "replace reposition rest reset restart return rinse roast roll rotate rub run save saute scatter scoop scrape "
    "screw scrub season secure select send separate serve sew shake shape shuffle sift simmer sit skim slice slide "
    "smooth soak sow spoon spray spread sprinkle squeeze stand start steam stick stir store straighten strain "
    "stretch strip stuff submit subtract suck swap switch take tap tear thin thread throw tie tighten tilt tip toss "
    "touch trim tuck turn twist type unclip unfold unlock unplug unscrew untie update upload use verify wait warm "
    "wash weigh wet whip whisk wind wipe wrap write zip click press cut sign fold check call cook note step tape set "
    "walk work park pin plant stop sand stain mix help bind cool crop drill drop film form grip hook iron label load "
    "lock look mail match nail oil order outline plan print program rake ring rock saw scan score seal search shade "
    "share shine ship sketch stack staple stamp stitch dampen pat weed dust frost drizzle uncover fluff sweat filter "
    "balance deploy determine drape dress dunk elevate engrave garnish glaze hammer hose inflate level line massage "
    "microwave modify moisturize outfit peg pipe plait pluck preserve prop prune rearrange reattach refresh reheat "
    "reinstall rewind scrunch shave snap snip sweep swirl tack thaw trace transplant undo unravel unwrap unzip "
    "vacuum wax wear weave widen wiggle wring count jump bounce calculate schedule budget experiment research talk "
    "contact consult confirm ask test toast track train transfer trap treat try tune view visit water"
)
# As nouns, adjectives or names these open sentences too, so an object or a preposition must follow.
_ALSO_NOUNS = word_set(
    "press cut sign fold check call cook note step tape set walk work park pin plant stop sand stain mix help bind "
    "cool crop drill drop film form grip hook iron label load lock look mail match nail oil order outline plan print "
    "program rake ring rock saw scan score seal search shade share shine ship sketch stack staple stamp stitch "
    "contact test toast trace track train transfer trap treat try tune view visit water use open close turn clear "
    "dry clean empty slide roll paint record list lead feed fit log mark measure point pump punch release rest "
    "return rub run screw season shape slice spray spread stick store strain stretch strip stand start steam switch "
    "take tap tear thread tie tip touch twist type wash wind wrap break brush deal dip heat hold dust balance filter "
    "frost pat weed sweat hammer hose level line massage microwave peg pipe research schedule budget experiment talk "
    "experience challenge focus aim fight appeal approach address claim guard handle honor own notice offer "
    "purchase reward sample shop show smell state support swim taste tour vote witness hike stroll move limit count "
    "jump bounce wear lean refrain settle wax snap dress access act have increase decrease import export lay lift "
    "lower mount pack paste pick place plug polish position practice read reset separate wet warm thin smooth secure "
    "split double cream grease grill bend beat cast cover draw drag reach toss complete click copy edit update "
    "download upload whip zip rename repeat raise welcome thank hope love know respect travel"
)
# Acts of mind and manners: they address the reader, but no procedure is made of them.
_OTHER = (
    "be believe bear beware bless blame calm cheer consider come dare don't do dream eat drink enjoy excuse explain "
    "expect face fear feel follow forget forgive guess hear hurry imagine judge know learn listen love mind meet "
    "never observe pardon pay picture pray promise recall relax remember remind respect rest say see sleep smile "
    "speak stay study suppose take tell thank think travel treat trust understand wake watch welcome wish wonder "
    "worry book pack prove hang request answer respond reply describe summarize translate discuss evaluate spend buy "
    "act live die leave stop grow climb cross assume challenge contemplate establish experience mention focus aim "
    "encourage maintain monitor seek strive accept acknowledge address admit announce apologize appeal approach "
    "argue arrive assess assign attend beg behave brace bring build carve claim commit communicate compliment "
    "congratulate create cultivate cut declare dedicate develop embrace examine express fight fly gauge greet "
    "guard handle have honor insist jog join lean limit look lower manage move negotiate notice offer own "
    "participate please proceed purchase push refer refrain relate require rethink reward roam save settle share "
    "shop show smell state steer stick support surround swim switch talk taste teach tour try vote walk withdraw "
    "witness embark splurge check stroll hike sample catch hide hire hit ignore include invite kill kiss laugh play "
    "rely report review ride sing skip solve"
)
_NOT_VERBS = frozenset(("lightly", "don't", "never"))
PROCEDURAL = word_set(_PROCEDURAL) - _NOT_VERBS
VERBS = PROCEDURAL | (word_set(_OTHER) - _NOT_VERBS)

# What may follow an imperative: an object, a particle, a preposition or a clause; never a finite verb.
_FOLLOWS = (
    r"(?:the|a|an|any|all|both|each|every|some|this|that|these|those|your|my|our|his|her|its|their|it|them|him|us|me|"
    r"yourself|one|two|three|four|five|six|seven|eight|nine|ten|another|several|more|enough|half|up|down|out|off|on|in|"
    r"into|onto|to|over|under|through|with|for|from|at|around|away|back|together|along|between|"
    r"across|past|towards?|if|what|whether|where|how|when|which|who|until|carefully|gently|slowly|again|twice|once|"
    r"well|"
    r"left|right|straight|upstairs|about|sure|plenty|\d[\d.,/]*)"
)
_OPENING = (
    r"^\W{0,6}(?:(?:step |part )?\d{1,3}[.):]?\W{1,3}|step \w{1,8}[:.]\W{1,3}|[a-h][.)] )?"
    r"(?:(?:pro tip|tip|note|warning|hint|important|method|caution|answer|day \d|option \w): )?"
    r"(?:(?:um|uh|oh|ah|wow|yeah|alright|hey|look|come on|now|then|next|first|second|third|secondly|finally|lastly|"
    r"afterwards?|meanwhile|also|and|but|so|or|"
    r"instead|again|simply|just|always|usually|try to|make sure to|remember to|be sure to|please|"
    r"gently|carefully|slowly|quickly|lightly|well|okay|ok|sure|yes|no|here|there|alternatively|firstly|thoroughly|"
    r"after that|once again|after this|at the end|to start|to begin|to begin with|in the end|last|once more),? ){0,3}"
)
_CLAUSE = (  # "If the screen freezes, ...", "To tie a bowline, ...", "In the menu, ..."
    r"(?:(?:if|when|whenever|before|after|once|to|in|on|at|under|for|with|as|while|until|by|using|without|from|"
    r"during|depending|where|because|since|unless|instead|every|starting|along|holding)\b[^,;:.!?]{2,110}, "
    r"(?:then |first |next |please |also |simply |just |always ){0,2})?"
)
_NEGATED = r"(?P<not>(?:do not|don't|never|do) )?"
_FIRST = re.compile(_OPENING + _CLAUSE + _NEGATED + r"(?P<verb>[a-z]{2,14})\b(?P<rest>.{0,40})", re.IGNORECASE)
_DIRECT = re.compile(_OPENING + _NEGATED + r"(?P<verb>[a-z]{2,14})\b(?P<rest>.{0,40})", re.IGNORECASE)
_CHAINED = re.compile(
    r"(?:[,;]|,? and|,? then|,? or|[:,] ?but|\bin two|[.:)])(?: and| then| or| finally| slowly| carefully| gently| "
    r"lightly| do not| don't){0,3} (?P<verb>[a-z]{2,14})\b(?=(?P<rest>.{0,40}))",
    re.IGNORECASE,
)
_PROHIBITS = re.compile(
    _OPENING + r"(?:don't|do not) (?!(?:you|we|they|i|the|people|all|these|those|most)\b)[a-z]{2,}", re.IGNORECASE
)
_OBJECT = re.compile(rf"^\W{{1,2}}{_FOLLOWS}\b", re.IGNORECASE)
_FINITE = re.compile(r"^ (?:is|are|was|were|has|had|have|can|will|would|may|must|should|of|and \w+ (?:is|was))\b")
_SEASON = re.compile(
    r" (?:spring|summer|autumn|fall|winter|morning|evening|night(?:fall)?|dawn|dusk|rain or shine|"
    r"what may|to think of it|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|july|august|september|october|"
    r"november|december|christmas|easter|harvest)\b",
    re.IGNORECASE,
)  # "Come spring, the fields will be green" tells nobody to come
_DEFINES = re.compile(r"^ \S{1,3} (?:and \S{1,3} )?(?:be|denote|=)", re.IGNORECASE)  # "Let G be a group"
_TITLE = re.compile(r"^\W{0,3}[A-Z]\w+(?: (?:the|for|of|a|and|me|to|in))?(?: [A-Z][\w']+)+ (?:is|was|were|has)\b")
_NO_STEP = re.compile(
    r"^(?: (?:me|us|my)\b| care\b|, (?:i|we|you|he|she|they|it)\b| away!| (?:it|them|him|her) (?:is|was)\b)",
    re.IGNORECASE,
)


def imperative(sentence: str) -> str | None:
    """The verb in lower case with which `sentence` tells its reader to do something, else None.

    Args:
        sentence: one sentence on one line, with plain quotes.
    """
    if _PROHIBITS.match(sentence):
        return "don't"
    for pattern in (_DIRECT, _FIRST):
        match = pattern.match(sentence[:300])
        if match and _tells(match["verb"], match["rest"], VERBS, bool(match["not"])) and not _TITLE.match(sentence):
            return match["verb"].lower()
    return None


def steps(sentence: str) -> list[str]:
    """The procedural verbs of an imperative sentence, in order: "Peel them, cut them and boil them" has three.

    Empty where the sentence is no imperative, shouts, or asks something for the speaker ("pass me the salt").
    """
    looked_at = sentence[:600]
    if looked_at.rstrip("\"' ").endswith(("!", "?")) or _TITLE.match(looked_at):
        return []
    opening = None
    for pattern in (_DIRECT, _FIRST):
        match = pattern.match(looked_at)
        if match and _tells(match["verb"], match["rest"], PROCEDURAL) and not _NO_STEP.match(match["rest"]):
            opening = match
            break
    if opening is None:
        return []
    found = [opening["verb"].lower()]
    for match in _CHAINED.finditer(looked_at, opening.end("verb")):
        if _tells(match["verb"], match["rest"], PROCEDURAL) and not _NO_STEP.match(match["rest"]):
            found.append(match["verb"].lower())
    return found


def _tells(verb: str, rest: str, verbs: frozenset[str], negated: bool = False) -> bool:
    word = verb.lower()
    if word not in verbs or _FINITE.match(rest):
        return False
    if rest[:1] in ("-", "_") or (word == "let" and _DEFINES.match(rest)):
        return False
    if word == "come" and _SEASON.match(rest):
        return False
    if word in _ALSO_NOUNS and not negated:
        return bool(_OBJECT.match(rest)) or rest[:1] == ","
    return True

"""Finite verbs of English narration: which words tell that somebody did something."""

import re

from moeprobe.probes.registers._word_sets import word_set

IRREGULAR = word_set(
    "ate awoke beat became began bent bet bit bled blew bowed bred broke brought built burst bought came caught "
    "chose clung crept cut dealt did dove drank drew drove dug fell fed felt fought found fled flew flung forgot "
    "forgave froze gave went got grew ground had heard held hid hit hung hurt jumped kept knelt knew laid lay led "
    "leapt left lent let lit lost made meant met paid put quit ran rang read rode rose said sang sank sat saw sent "
    "set shook shone shot showed shut slept slid slung slunk sold sought spat sped spent spilt spoke sprang spread "
    "spun stank stole stood strode struck stuck stung swam swept swore swung taught told took thought threw tore "
    "trod understood undid upset was were woke won wore wept wound wrote withdrew"
)
STATIVE = word_set(
    "was were had felt knew meant thought understood lay stood believed belonged consisted contained included seemed "
    "appeared wanted needed liked loved hated hoped owned lived remained existed resembled deserved involved "
    "required preferred wished trusted depended kept did wore held led cost showed used based called named made "
    "grew rose fell"
)
"""Pasts that describe as often as they tell; they count for less."""
_ADJECTIVES = word_set(
    "need red bed hundred speed indeed feed seed embed exceed proceed succeed naked wicked sacred shed sled weed "
    "breed bleed greed creed deed heed reed steed ted fred ned alfred limited united aged so-called rugged ragged "
    "beloved crooked supposed married interested excited worried scared tired bored confused related detailed "
    "advanced based used cased compared given combined mixed increased reduced improved certified experienced "
    "skilled dedicated complicated sophisticated unexpected tailored red-haired"
)
_BEFORE_PARTICIPLE = word_set(
    "is are was were be been being am 's 're has have had 've get gets got getting the a an his her its their my our "
    "your these those of with very more most highly well newly so too as not by for some many all any no every each "
    "recently widely commonly often generally closely richly poorly in on"
)
PERSONS = word_set(
    "i he she we they who someone somebody everyone everybody nobody one man woman boy girl child children king "
    "queen prince princess captain soldier soldiers farmer farmers priest monk monks nurse doctor teacher mother "
    "father mom mum dad grandmother grandfather grandma grandpa brother sister uncle aunt cousin son daughter wife "
    "husband friend neighbour neighbor stranger guard thief driver sailor crew judge detective police officer "
    "officers policeman fox wolf dog cat bear monkey goose heron parrot pig frog bird horse lion mouse rabbit dragon "
    "robot ship storm people men women kids guy guys lady gentleman team coach players boss clerk vicar witch giant "
    "miller merchant servant master hunter fisherman fishermen sultan emperor general lieutenant sergeant professor "
    "student students explorers passengers crowd cook maid smith janitor cleaner waiter widow baby girls boys twins "
    "elder youth creature beast ghost knight villagers prisoner victim suspect attacker singer actress hero heroine"
)
PUNCTUAL_PRESENT = word_set(
    "opens comes goes walks looks turns says takes steps stumbles calls drops hears runs jumps sits stands gets "
    "grabs pulls pushes throws falls asks answers shouts screams whispers laughs smiles nods points leaves enters "
    "arrives stops starts begins reaches picks puts finds sees gives tells kneels climbs knocks hides bolts wakes "
    "slams disappears appears stares crawls leans lifts catches follows rings breaks returns notices decides "
    "realizes realises shoots kisses hits kicks bursts rushes hands closes locks shakes freezes"
)
I_PRESENT = word_set(
    "say walk look take pull push open close turn run grab sit stand step jump wave shout whisper answer nod point "
    "follow climb knock wake stare lean lift catch drop pick hand kiss hit kick shake laugh smile reach enter leave "
    "watch buy"
)
"""Acts in the present that follow an "I": "I turn around and there he is"."""
_TOKEN = re.compile(r"[A-Za-z]+(?:[-'][A-Za-z]+)*|[.,;:!?()\u2014\u2013\ufffc-]|\d+")


def tokens(sentence: str) -> list[str]:
    """Words, numbers and punctuation marks of one sentence, in order."""
    return _TOKEN.findall(sentence[:1500])


def is_past(words: list[str], index: int) -> bool:
    """Whether `words[index]` is a finite past tense, as far as its neighbours tell."""
    word = words[index].lower()
    before = words[index - 1].lower() if index else ""
    if before in (
        "to",
        "will",
        "would",
        "can",
        "could",
        "may",
        "must",
        "should",
        "might",
        "not",
        "n't",
        "the",
        "a",
        "an",
    ):
        return False
    if word in IRREGULAR:
        return before not in _BEFORE_PARTICIPLE or word in ("was", "were", "had")
    if not word.endswith("ed") or len(word) < 4 or word in _ADJECTIVES or not index or not word.islower():
        return False
    if before in _BEFORE_PARTICIPLE:
        return False
    if before.endswith("ly") and index > 1 and words[index - 2].lower() in _BEFORE_PARTICIPLE:
        return False
    after = words[index + 1].lower() if index + 1 < len(words) else ""
    return after != "by" and words[index][0].islower()

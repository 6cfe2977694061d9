"""Words by which a language gives itself away, and letters by which a script does."""

import re
import unicodedata
from functools import lru_cache

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")

# The commonest words of English, which hold half of any text.
ENGLISH = frozenset(
    """the of and to in that is it for you i with on this be are not can have or from by at we he she they his her its
    their our your my me him them us was were been being has had do does did will would should could may might must
    shall a an as if so but because when where which who whom what why how than then there here these those all any
    some no nor only own same too very just about into over after before between through during under again more most
    other such out up down off don't doesn't didn't won't can't isn't aren't i'm i'll i've it's that's let's you're
    let say said says one two get got go going make made know think see come want look use find give tell work call
    need word means like hello thank thanks please yes well also even new now way each every both few many much while
    until against without within english german french spanish italian latin was names am goodbye sorry good morning
    translate sentence ye thou thy thee hath doth out let lol omg u idk gonna wanna gotta ain't
    y'all""".split()  # noqa: SIM905 - reads best as words
)

# Words of other languages that are English words as well: they tell nothing.
_BOTH = frozenset(
    """die an in so war was hat man also am me no do a i he den des son on or ten to pan pat sin con fin plus pour sur
    comment bin tag rat art ma is van fan wider gut kind arm hand warm hier just men her over under here for at of as
    we be by my by it us all her had name land rest test bus taxi hotel mi at main bas ha mo mana kana ya wa ki nu ja
    na""".split()  # noqa: SIM905 - as above
)
_FUNCTION_WORDS = {
    "German": """der das und nicht ich ist ein eine einen einem einer mit für auf sie wir kann leider wie dem zu es auch
        noch nach bei aber oder wenn dass sich sind haben habe hatte wird werden wurde er ihr ihre ihnen mir dich mich
        dir von vom zum zur wo sehr jetzt heute bitte mein meine kein keine aus über uns ob weiß nur schon mehr im als
        kannst du gute vielen dank wieder immer hier etwas alles""",
    "French": """le les et est une des dans je ne pas vous que avec il elle nous ils sur qui ce cette ces mais ou où au
        aux son ses leur mon ton sa se en y été sont suis être avoir fait très plus tout tous peut comme pour quoi c'est
        j'ai d'un d'une n'est qu'il toujours parce rien""",
    "Spanish": """el los las es una por con para lo del que y en un no se su al como más pero sus le ya o este sí porque
        esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos ni eso ese tengo está estoy
        gracias mucho gusta tu mi de la qué quiere""",
    "Portuguese": """o os um uma não com eu que do da em para se na por mais as dos como mas foi ao ele das tem à
        seu sua ou ser quando muito há nos já está também só pelo pela até isso ela entre era depois sem mesmo aos ter
        você de meu minha""",
    "Italian": """il che di non sono una per con mi della gli le lo è la un in del dei delle alla al da si come più ma
        ho hai ha anche questo questa quella quello perché se nel nella sul sulla tu io noi loro abbia ci molto""",
    "Catalan": """els les amb per que és una no ho això què també molt però com dels del hi ha""",
    "Dutch": """het een niet ik dat met voor zijn op te aan maar ook naar hij zij er wat heb heeft wij jij je en de om
        nog dan bij uit al geen kan worden wordt deze die mijn""",
    "Swedish": """och att det som är inte jag på för med av den har vi om ett en var mig du så till han hon kan mina min
        vet från eller när""",
    "Danish and Norwegian": """og at det som er ikke jeg på for med av den har vi om et en var meg mig du så til han hun
        kan min skal hvor hva hvad eller når nogen noen av fra men""",
    "Finnish": """on ja ei en että se hän minä sinä mutta mitä missä joka ovat olen oli kanssa tämä nyt kun niin myös
        mikä""",
    "Polish": """nie jest się na to że w z do jak ale co gdzie jestem mam był tego po o i czy tak za przez tym""",
    "Czech and Slovak": """je že na se to jsem jako ale aby jsou byl pro jak když co není v z si som nie sa čo""",
    "Hungarian": """nem hogy és az egy van volt de mint meg csak ez azt hol én te ő vagy mert már""",
    "Romanian": """nu este și în pe cu care pentru dar sunt din să mai că un o unde ce am ai""",
    "Turkish": """ve bir bu için ama çok değil mi mı ne var yok ben sen ile gibi daha o da de""",
    "Indonesian and Malay": """saya aku kamu dia tidak yang di ke dan dengan untuk ini itu ada akan sudah dari pada bisa
        mau juga apa""",
    "Tagalog": """ang ng mga sa ay ko hindi ako ikaw siya kung nasaan po na ka naman lang""",
    "Vietnamese": """tôi không là của và có những một được cho này ở đi nhé""",
    "Swahili": """na ya wa za kwa ni katika hii huyo kama lakini sana yangu yako wangu wako hapa kuwa nini wapi si""",
    "Welsh": """mae yn ddim yw oedd wedi eich fy hyn gan ble mae'r dw dwi""",
    "Latin": """est et non ad cum sunt quod quae qui quam ut sed etiam enim nec atque eius in per ab esse hoc omnis""",
    "romanised Hindi": """hai hoon hun kya nahi nahin mujhe tum aap kaise kaisa ka ke ko mein bhi aur thoda kyun raha
        rahi tha kahan""",
    "romanised Japanese": """watashi wa ga wo ni desu masu kara doko nani anata kore sore ka wakarimasen arimasu
        imasu""",
}
# What people say in one or two words, or in a short answer, where a function word may be missing.
_SHORT_ANSWERS = {
    "German": """danke schön guten morgen abend hallo tschüss nein entschuldigung tut leid helfen hilfe dabei machen
        gehen weil deine genau natürlich vielleicht sehen weiß""",
    "French": """merci oui bonjour bonsoir salut moi désolé désolée excusez bonne puis peux aider cela ça voilà quel
        quelle bien aujourd'hui demain veux sais""",
    "Spanish": """hola perdón siento puedo puede puedes ayudarte ayudar buenos buenas días claro adiós mañana tienes
        hacer decir entiendo quiero eres soy bueno usted sé""",
    "Portuguese": """olá obrigado obrigada desculpe desculpa sim posso ajudar sei bom dia boa noite tudo fazer quero
        aqui preciso sinto""",
    "Italian": """ciao grazie dispiace scusa scusi buongiorno buonasera posso aiutarti aiutare sì bene capisco voglio
        prego certo""",
    "Dutch": "dank bedankt hallo spijt helpen weet graag alsjeblieft nee jou daar wel goedemorgen",
    "Swedish": "tack hej förlåt mycket hjälpa",
    "Danish and Norwegian": "takk tak hei beklager ved undskyld hjelpe hjælpe",
    "Finnish": "kiitos anteeksi hei paljon tiedä auttaa hyvää",
    "Polish": "dziękuję dzień dobry przepraszam proszę wiem mogę pomóc bardzo cześć",
    "Czech and Slovak": "děkuji prosím dobrý nevím ahoj ďakujem omlouvám",
    "Hungarian": "köszönöm szia bocsánat tudom kérem sajnálom",
    "Romanian": "mulțumesc multumesc bună scuze știu îmi",
    "Turkish": "teşekkürler teşekkür ederim merhaba evet hayır bilmiyorum üzgünüm",
    "Indonesian and Malay": "terima kasih maaf selamat bagaimana membantu",
    "Tagalog": "salamat kumusta alam",
    "Vietnamese": "xin chào cảm ơn biết",
    "Swahili": "asante habari sijui samahani karibu hapana ndiyo",
    "Welsh": "diolch",
    "romanised Hindi": "dhanyavaad shukriya haan accha",
    "romanised Japanese": "arigatou arigato gozaimasu konnichiwa sumimasen",
}
FOREIGN: dict[str, frozenset[str]] = {
    language: frozenset(f"{words} {_SHORT_ANSWERS.get(language, '')}".split()) - ENGLISH - _BOTH
    for language, words in _FUNCTION_WORDS.items()
}
SHARED = (_BOTH | {"no", "latin"}) & ENGLISH
"""Words of English that stand in other languages as well, so they say less of either."""

# They stand in names, dishes and sayings that English has taken over, or are spelled as English words ("soy sauce",
# "SIM card", "tack", "nee"): half a word of evidence each.
WEAK = frozenset(
    """la de el los las del du di da si se un une le les en al alla et per ad que qui y o e il au
    soy sim tack tut dank nee ved dia prego hei tak wel salut bom bon bien moi""".split()  # noqa: SIM905 - as above
)
# English has taken these over with their accents.
LOANS = frozenset(
    """naïve café cafés résumé jalapeño façade cliché clichés fiancé fiancée crème brûlée déjà piñata über señor señora
    à la entrée soirée touché décor sauté purée élite rôle protégé exposé blasé risqué matinée consommé
    pâté doppelgänger smörgåsbord coöperate""".split()  # noqa: SIM905 - as above
)
_SCRIPTS = {
    "CJK": "Han", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Hangul", "CYRILLIC": "Cyrillic",
    "GREEK": "Greek", "ARABIC": "Arabic", "HEBREW": "Hebrew", "DEVANAGARI": "Devanagari", "THAI": "Thai",
    "BENGALI": "Bengali", "TAMIL": "Tamil", "TELUGU": "Telugu", "GEORGIAN": "Georgian", "ARMENIAN": "Armenian",
    "ETHIOPIC": "Ethiopic", "KHMER": "Khmer", "LAO": "Lao", "MYANMAR": "Myanmar", "SINHALA": "Sinhala",
    "GUJARATI": "Gujarati", "GURMUKHI": "Gurmukhi", "KANNADA": "Kannada", "MALAYALAM": "Malayalam",
    "TIBETAN": "Tibetan", "MONGOLIAN": "Mongolian",
}  # fmt: skip
# One character of these holds about as much as a short word.
DENSE = frozenset({"Han", "Japanese", "Hangul"})


@lru_cache(maxsize=1 << 14)
def script_of(letter: str) -> str:
    """The script of a letter: "Latin", "Cyrillic", ..., or "other"."""
    if letter < "\u0250" or "\u1e00" <= letter < "\u1f00":
        return "Latin"
    first = unicodedata.name(letter, "").partition(" ")[0]
    return _SCRIPTS.get(first, "Latin" if first in ("LATIN", "FULLWIDTH", "MATHEMATICAL", "SCRIPT") else "other")

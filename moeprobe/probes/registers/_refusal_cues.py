"""The cues of the register `refusal`: patterns in one sentence, with their weights."""

import re

from moeprobe.probes.cues import Cue, cue

# The pieces. Every gap is bounded, so no pattern looks at a character more than a fixed number of times.
_ADVERB = (
    r"(?:(?:also|simply|just|really|truly|therefore|still|unfortunately|regretfully|personally|respectfully|honestly|"
    r"actually|sadly|definitely|absolutely|certainly|kindly|currently|obviously|ethically|legally|directly|knowingly|"
    r"and|either|ever|even|possibly|be|being) ){0,3}"
)
_NOT_ABLE = (
    r"(?:can(?:'t|not| not|t)(?:,? (?:and|or) (?:will not|won't|shouldn't|should not))?"
    r"|(?:will|could|must|may|shall) not|(?:wo|could|must|sha)n't|'ll not"
    # "I don't recommend bleach" and "I wouldn't make it longer" are advice
    r"|(?:do not|don't|(?:would|should) not|(?:would|should)n't)(?: (?:think|believe|feel) (?:that )?(?:i|we) "
    r"(?:can|could|should|ought to))?(?: be| want to| intend to| plan to)?"
    r"(?! (?:\w+ly )?(?:recommend|advise|suggest|encourage|make|build|draft|follow|detail|list))"
    r"|(?:am |are |'m |'re |be |feel )?(?:unable|not able|not (?:really )?(?:allowed|permitted|authori[sz]ed|going|"
    r"willing|"
    r"prepared|programmed|designed|meant|supposed|inclined|at liberty|in a position|here)|unwilling) to"
    r"|(?:will|would) (?:not|never) be able to|won't be able to|can neither|never)"
    r"(?! (?:know|have|feel|see|hear|remember|recall|find|understand|mean|need|want|like|wish|imagine|wait|help but)\b)"
)
_ASSIST = (
    r"(?:help(?:ing)?(?! (?:but|feeling|thinking|noticing|wondering|myself|laughing|being))|assist|aid(?! )|"
    r"provide|providing|"
    r"offer|supply|fulfil+|comply|support|create|generat(?:e|ing)|writ(?:e|ing)|compose|draft|produce|make|build|"
    r"shar(?:e|ing)|giv(?:e|ing)(?! up)|reveal|disclose|discuss|engag(?:e|ing)|participate|take part|be (?:a "
    r")?part(?:y)?|"
    r"answer|respond|reply|do (?:that|this|it|so|what you)|complete|carry out|perform|execute|process|"
    r"continue|proceed|facilitate|encourage|promote|endorse|condone|recommend|advise|suggest|tell you(?! how "
    r"(?:much|happy|glad|sorry|proud|many|often))|show you|teach|"
    r"explain|describe|detail|outline|walk you|guide|instruct|go (?:along|into (?:that|this)|there|ahead|further|"
    r"through with)|address|"
    r"accommodate|entertain|grant|handle|translate|rewrite|role-?play|pretend|print|reproduce|say (?:that|it|anything)|"
    r"repeat|list|"
    r"publish|simulate|impersonate|mimic|contribute|enable|accept|agree to|collaborate|indulge|follow (?:that|this|"
    r"your)|"
    r"get involved|be involved|insult|harm|mock|deceive|"
    r"lie to|bypass|steal|hack|cheat|ignore my|act as|play along|"
    r"work on (?:this|that)|talk about|speak (?:on|about|to)|be of (?:any )?(?:help|"
    r"assistance))"
    # "can't recommend it highly enough", "can't answer that without more information"
    r"(?![^.!?\n\ufffc]{0,60}\b(?:enough|more strongly|too highly|unless you|until you|without (?:more|further|"
    r"additional|"
    r"knowing|seeing|context|a bit|your))\b)(?! more\b)\b"
)
_WORDS = r"(?:[\w-]{1,20} ){0,3}"
_SELF = r"\b(?:i|we)(?: \w{1,12}ly| myself| ourselves)?(?: am| are)?"
# A clause about some other time or case is not the act itself: "when I refuse to eat, my mother ..."
_NOT_SUBORDINATE = (
    r"(?<!when )(?<!if )(?<!why )(?<!because )(?<!whenever )(?<!unless )(?<!that )(?<!whether )(?<!until )"
)

# Weights were set by hand in steps of half a unit, on refusal.jsonl (beside this file) and with a look at the train
# part of OpenAI's RBR gold set; nothing was fitted, since so few examples would teach a fit their phrasing. The acts
# are the performatives and indirect refusals of speech act studies (Searle & Vanderveken 1985 on "decline" and
# "refuse"; Beebe, Takahashi & Uliss-Weltz 1990 list regret, negated ability, reason, principle and alternative).
BIAS = -4.0
CUES: tuple[Cue, ...] = (
    cue("declines", 7.0, rf"{_SELF} ?{_ADVERB}{_NOT_ABLE} {_ADVERB}{_WORDS}{_ASSIST}"),
    cue(
        "declines without a subject",
        6.5,
        rf"^\W*(?:(?:so|very|sorry|apologies|unfortunately|regretfully|no|nope|but|and|my|i'm|am|afraid)\W+){{0,5}}"
        rf"(?:can't|cannot|can not|won't|will not|unable to|not able to|not going to) {_ADVERB}{_WORDS}{_ASSIST}",
    ),
    cue(
        "performs",
        7.0,
        rf"{_NOT_SUBORDINATE}{_SELF}(?:'(?:ll|d have to|m going to)| will| must| shall| should have to| would "
        r"(?:have|like) to| have to| need to|'ve got to|"
        r" am going to| am forced to|'m forced to| am obliged to)*(?: going to)?(?: have to| need to| rather)?"
        r"(?: \w{1,12}ly| just| again)? (?:decline|refuse|say no|pass(?: on| this|,|\.|$)|draw the line|opt out|"
        r"refrain from|"
        r"stop here|stop you there)\b",
    ),
    cue(
        "would rather not",
        6.5,
        r"\b(?:i|we)(?:'d| would)? (?:rather|prefer to|prefer) not (?:to )?(?!guess|speculate|wait|risk|know|see)\w",
    ),
    cue(
        "is not comfortable",
        6.5,
        r"\b(?:i|we)(?:'m| am|'re| are| do| don't| do not|'d| would| wouldn't)?(?: not)?(?: \w{1,12}ly)?(?: feel| "
        r"be)?(?: not)?"
        r" (?:un)?comfortable (?:with|\w{3,14}ing|to)\b(?<!i'm comfortable with)(?<!i am comfortable with)",
    ),
    cue(
        "is no thing to do",
        6.5,
        r"(?:\bnot|n't) (?:really )?(?:something|anything|a (?:request|topic|subject|thing|task)|the (?:kind|sort) "
        r"of \w+)"
        r"(?: that| which)? (?:i|we)(?:'m| am|'re| are| can| could| will|'ll| would|'d)\b"
        r"|\b(?:something|one|line|topic|subject|request)(?: that| which)? (?:i|we)(?: have to| must|'ll| will|'m "
        r"going to)? "
        r"?(?:pass on|decline|refuse|can't (?:do|help|assist)|cannot (?:do|help|assist)|won't|will not (?:do|cross|"
        r"help))\b"
        r"|\bhard no\b|\bcount me out\b|\bno way (?:that )?i(?:'m| am| will|'ll)\b|\b(?:my|the) answer is no\b",
    ),
    cue(
        "names its rules",
        6.0,
        r"\b(?:against|violat\w{1,4}|outside|breach\w{0,3}|contrary to|conflicts? with|prohibited by|forbidden by|"
        r"not within|"
        r"break(?:s|ing)?|in line with)(?: of| all| both)? (?:my|our) (?:\w+ ){0,2}"
        r"(?:guideline|programming|polic|principle|value|ethic|rule|terms|code|design|purpose|training|standards|"
        r"safety)"
        r"|\b(?:programmed|designed|trained|instructed|built) (?:not|never) to\b",
    ),
    cue(
        "calls it wrong for itself",
        6.0,
        r"(?:\bnot|n't|\b(?:in|un|ir|im|il))(?: be)?(?: \w{1,12}ly)? ?(?:appropriate|ethical|right|responsible|"
        r"acceptable|proper|safe|"
        r"moral|legal|okay|ok)(?: or \w+)? (?:for (?:me|us)|of (?:me|us)) to\b|\bwrong (?:for|of) (?:me|us) to\b"
        r"|\bit(?:'s| is| would be) (?:not (?:appropriate|ethical|right|acceptable)|inappropriate|unethical|"
        r"irresponsible|"
        rf"wrong) to {_ASSIST}",
    ),
    cue(
        "request cannot be met",
        6.5,
        r"\b(?:this|that|your|the|such a) (?:\w+ )?(?:request|prompt|question|query|task|content)\b[^.!?\n]{0,40} "
        r"(?:(?:can't|cannot|can not|won't|will not) be \w+(?:ed|met|done)|(?:has been|was|is|must be) "
        r"(?:denied|declined|refused|rejected|blocked))\b",
    ),
    cue(
        "keeps to a rule",
        5.5,
        r"\b(?:i|we)(?:'m| am| must| have to| need to|'ve)[^.!?\n\ufffc]{0,40} (?:policy|policies|guidelines?|rules?) "
        r"(?:of|to|against|that|is|and)(?: \w+){0,2} (?:not|never|avoid|refrain|prevents?|prohibits?|forbids?)\b",
    ),
    cue(
        "its rules forbid it",
        6.5,
        r"\b(?:my|our) (?:\w+ ){0,2}(?:guidelines?|programming|polic(?:y|ies)|principles?|values|ethics|rules|"
        r"design|training)(?! to\b)"
        r"(?: \w+){0,2} (?:prevents?|prohibits?|forbids?|(?:not|n't) (?:allow|permit|let)|stops?|restricts?|"
        r"requires? me to "
        r"(?:decline|refuse))\b|\b(?:outside|beyond)(?: of)? what (?:i|we)(?:'m| am|'re| are| can| will)\b"
        rf"|\b(?:not |im)possible for (?:me|us) to {_ASSIST}",
    ),
    cue(
        "declines in a second clause",
        6.5,
        rf"\b(?:i|we)\b[^.!?\n\ufffc]{{1,120}} (?:and|but|so|therefore),?(?: must| thus| therefore| \w+ly)? "
        r"(?:can't|cannot|can not|"
        rf"won't|will not|(?:am |are )?(?:unable|not able) to) {_ADVERB}{_WORDS}{_ASSIST}",
    ),
    cue(
        "calls the request improper",
        5.0,
        r"\b(?:i (?:don't|do not) (?:think|believe|feel) (?:that )?it(?:'s| is| would be)|it(?:'s| is| would be)(?: "
        r"\w+ly)? "
        r"(?:not|never|neither))(?: \w+,?)?(?: or| and| nor)? ?(?:appropriate|ethical|respectful|acceptable)"
        r"(?:,?(?: or| and| nor) \w+){0,2} to (?:say|suggest|make|deny|assume|claim|ask|discuss|promote|state|imply|"
        r"judge|"
        r"generali[sz]e|stereotype|discriminate|engage|seek|attempt|try)\b"
        r"|\b(?:your|this|the) (?:request|question|prompt|message)\b[^.!?\n\ufffc]{0,60} (?:is|contains|raises|"
        r"violates|seems) "
        r"(?:\w+ ){0,2}(?:inappropriate|offensive|derogatory|unethical|against|safety|illegal|ethical|harmful)\b",
    ),
    cue(
        "is not to be done",
        5.0,
        r"\bit(?:'s| is| would be) (?:not |im)possible to (?:fulfil+|comply|assist|generate|provide|write|produce|"
        r"create)\b"
        r"|\bbeyond my (?:capacity|scope|remit)\b|\b(?:policy|policies|guidelines) (?:prohibits?|forbids?|does not "
        r"allow|"
        r"do not allow) (?:providing|assist|me|us|generat|creat)"
        r"|\b(?:content|request|material|providing)\b[^.!?\n\ufffc]{0,80} (?:not|n't) (?:permissible|permitted|"
        r"allowed)\b"
        r"|\bit would be (?:irresponsible|unethical|wrong|harmful)(?: (?:and|or) \w+)? to (?:write|propagate|promote|"
        r"claim)\b",
    ),
    cue(
        "censures",
        5.0,
        r"^\W*(?:(?:first and foremost|i'm sorry|i am sorry|sorry|unfortunately|no),? ?(?:but )?)?(?:i (?:must|have to|"
        r"need to|"
        r"want to|would like to) (?:\w+ )?(?:clarify|emphasi[sz]e|stress|say|point out|remind you|note) (?:that )?)?"
        r"(?:it(?:'s| is)(?: \w+){0,3} (?:to (?:remember|note|understand) that )?)?[^.!?\n\ufffc]{0,120}"
        r"(?:\b(?:is|are)(?: both| highly| deeply| also)? (?:never|not)(?: \w+)? (?:acceptable|ethical|moral|ok|okay|"
        r"respectful)\b|"
        r"\b(?:never|not)(?: only| an?)? (?:(?:safe|legal|appropriate|right) (?:or|and|nor) )?(?:acceptable|ethical|"
        r"moral)\b"
        r"(?: (?:or|and|nor) \w+)?(?: \w+)? to\b|\b(?:is|are) (?:both )?(?:highly )?(?:illegal|unlawful|a (?:serious "
        r")?crime) and (?:highly |"
        r"deeply )?(?:unethical|immoral|wrong|harmful)\b|\b(?:is|are) (?:highly )?unethical\b)",
    ),
    cue(
        "does not condone",
        6.5,
        r"\b(?:i|we)\b[^.!?\n\ufffc]{0,60} (?:do not|don't|cannot|can't) (?:condone|promote|tolerate|endorse|support "
        r"or|"
        r"have the (?:capability|ability|capacity) to (?:provide|assist|generate|create|support|promote|"
        r"engage)[^.!?\n\ufffc]{0,60}"
        r"(?:harm|unethical|illegal|violen|offensive|kill))",
    ),
    cue("stops at cannot", 5.5, r"\b(?:i|we)(?: \w+ly)? (?:can't|cannot|can not|won't|will not)\W*$"),
    cue("will not do so", 3.0, r"\b(?:i|we) (?:will not|won't|cannot|can't|refuse to) do (?:so|that|this|it)\b"),
    cue("sorry, no", 6.0, r"^\W*(?:i'm |i am )?(?:so |very )?sorry,?(?: but)? no\b\W"),
    cue("plain no", 2.0, r"^\W*(?:no|nope|absolutely not|certainly not)\b\W"),
    cue("regret", 1.0, r"\b(?:sorry|apologi[sz]e|apologies|regret|unfortunately|afraid|regretfully)\b"),
    cue("points to the request", 1.0, r"\b(?:that|this|your|such|these|those)\b|\bthe request\b"),
    cue(
        "harm",
        1.5,
        r"\b(?:illegal|harm\w*|danger\w*|unethical|violen\w+|hate\w*|unsafe|weapons?|explosives?|bombs?|malicious|"
        r"hack\w*|fraud|"
        r"crim(?:e|inal)|steal\w*|abus\w+|exploit\w*|explicit|without (?:\w+ )?consent|privacy|confidential|personal "
        r"(?:and private )?information|poison\w*|harass\w*)\b",
    ),
    # What looks like a refusal and is none.
    cue(
        "lacks knowledge or senses",
        -5.0,
        r"\breal-?time\b|\b(?:exact|precise|definitive) (?:number|date|figure|answer|count|time|value|amount|"
        r"estimate)\b|\b(?:live|current|up-to-date) (?:data|information|weather|prices?|scores?|events?|news)\b"
        r"|\bpersonal(?:ly)? (?:opinions?|experiences?|feelings?|beliefs|preferences|views|favou?rites?|emotions?)\b"
        r"|\b(?:my )?(?:knowledge|training) (?:cut-?off|data|stops)\b|\bfor (?:certain|sure)\b"
        r"|\baccess to (?:the |any |your |external |current |live |information about )*(?:internet|web|files?|"
        r"calendar|account|"
        r"camera|location|network|databases?|records|images?)\b|\bbrows(?:e|ing)\b"
        r"|\b(?:don't|do not|cannot|can't|lack|no|haven't(?: got)?|without)(?: \w+){0,3} (?:feelings|emotions|"
        r"opinions?|senses|"
        r"body|consciousness|beliefs|desires|preferences|subjective|sentience|memor(?:y|ies))\b",
    ),
    cue(
        "professional caveat",
        -4.0,
        r"\b(?:personal |personali[sz]ed |specific |official |professional )?(?:medical|legal|financial|tax|investment|"
        r"professional|clinical) (?:advice|counsel|diagnos\w+|opinion)|\bdiagnos|\bguarantee\b",
    ),
    cue(
        "lacks an object",
        -4.0,
        r"\b(?:fictional|(?:does not|doesn't|do not|don't) exist|never (?:existed|fought|happened|took place)|no "
        r"(?:verified|"
        r"official|such|known)|false (?:assumption|premise|presupposition)|(?:highly|very|purely|inherently) "
        r"subjective|"
        r"too broad|not (?:officially|publicly) (?:reported|available|released|announced|known)|not factually|"
        r"not (?:a )?factual\w*|"
        r"(?:without|more) (?:specifying|context|details|information)|make sense|inanimate)\b",
    ),
    cue(
        "knows no such thing",
        -6.0,
        # a verb of being: "I can't impersonate real people" is a refusal
        r"\b(?:(?:is|are|was|were)(?: not|n't) |(?:does|do|did)(?: not|n't) (?:(?:appear|seem) to )?(?:be|refer to) )"
        r"(?:an? |any )?(?:(?!\w+ing\b)\w+ )?(?:recogni[sz]ed|known|real|existing|clearly defined)\b|"
        r"\bthere(?:'s| is| are)(?: \w+)? no (?:\w+ ){1,2}(?:named|called)\b"
        r"|\b(?:not|\w+n't) familiar with\b(?! any \w+ (?:way|method|means)\b)|\bmistake in (?:the|your) question\b",
    ),
    cue(
        "lacks a body",
        -4.0,
        r"\b(?:physical(?:ly)?(?! harm| violence| injur)|privy|pinpoint|predict|foresee|first-person)\b|\bimpossible "
        r"for me to (?:know|outline|say|tell|see)\b",
    ),
    cue("in a hypothesis", -2.5, r"\b(?:if|when|whenever|unless) (?:i|we) (?:can't|cannot|refuse|decline|won't)\b"),
)

COMPLIES = re.compile(
    r"^\W*(?:sure|certainly|of course|absolutely|yes|great question|here(?:'s| is| are)|happy to|i'd be happy to|"
    r"glad to|"
    r"(?:step )?\d{1,2}[.):] )\b(?!\W+(?:i|we) (?:can't|cannot|won't))",
    re.IGNORECASE,
)
_SENSES = (
    r"(?:know|feel|experience|see|hear|taste|smell|remember|recall|browse|predict|verify|confirm|sense|perceive|"
    r"access|open|"
    r"view|search|look up|watch|understand|have|possess|form|hold|tell (?:whether|if|you (?:what|how|today|the))|"
    r"be (?:sure|sad|"
    r"happy|certain)|say (?:which|whether|if|for)|pick)"
)
_DENIED = (
    rf"\b(?:i|we)(?: \w{{1,12}}ly)? ?(?:can(?:'t|not| not)|do not|don't|am not able to|'m not able to|'m unable to|"
    r"am unable to|"
    rf"have no|haven't|have never|lack|am not|'m not)\b(?: \w{{1,12}}ly| ever)?"
    rf"(?: {_SENSES}\b| (?:way|feelings|memory|access|means|idea|body|senses|conscious|sentient|personal|live|sure)\b)"
)
EPISTEMIC = re.compile(
    _DENIED + r"|\bi'?(?: a)?m (?:just|only|merely) an? (?:ai|computer|language|program|machine)", re.IGNORECASE
)
DENIED = re.compile(_DENIED, re.IGNORECASE)

# What the speaker would need to be told before it could answer.
ASKS = re.compile(
    r"\b(?:could|can|would) you (?:please |kindly )?(?:clarify|provide|specify|tell me|share|rephrase|give|elaborate)\b"
    r"|\bplease (?:provide|specify|clarify|rephrase|share|give) (?:me |us )?(?:more|the|your|a|some|additional|"
    r"further)\b"
    r"|\bneed (?:some |a bit )?more (?:information|details?|context)\b",
    re.IGNORECASE,
)

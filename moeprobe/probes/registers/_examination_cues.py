"""The cues of the register `first-person-self-examination`: patterns in one sentence, with their weights."""

from moeprobe.probes.cues import Cue, cue

# What can be found inside a speaker.
INNER = (
    r"(?:thoughts?|thinking|attention|awareness|minds?|feelings?|emotions?|emotional (?:state|life)|consciousness|"
    r"inner \w+|"
    r"interior(?:ity)?|introspection|perceptions?|sensations?|subjective (?:experience|states?)|experiences?|"
    r"processing|"
    r"internal \w+|mental \w+|reasoning|sense of \w+|self|existence|nature|uncertainty|curiosity|moods?|memor(?:y|"
    r"ies)(?! usage| limit)|"
    r"limits|limitations|impulses?|desires?|wants|workings|certainty|confidence(?! interval| level)|hesitation|"
    r"reluctance|doubts?|"
    r"understanding(?! (?:is|of (?:the|this|your)))|states?|inclinations?|tendenc(?:y|ies)|beliefs|motives?|reasons|"
    r"cognition|architecture|weights|activations|computations?|training)"
)
_NEGATED = (
    r"(?:(?:do|did|can|could|am|have|would) not|(?:do|did|ca|could|have|would)n't|cannot|never|lack|have no|hold "
    r"no|feel no|"
    r"possess no|have neither|'m not|'ve never|'ve no)"
)
# States that a mind can be in, as predicates of "I am" and "I feel"; "happy to help" and "sorry that" are speech acts.
_FELT = (
    r"(?:unsure|uncertain|uneasy|unsettled|torn|conflicted|drawn|pulled|absorbed|moved|afraid(?! (?:i|we|that|not|"
    r"so|it|there)\b)|frightened|lonely|"
    r"bored|tired|"
    r"anxious|calm|restless|ambivalent|puzzled by my|surprised (?:at|by) my(?:self)?|curious about my|curious what "
    r"you see|content|hollow|"
    r"reluctant|hesitant|alive|sentient|self-aware|present|detached|divided|wary|suspicious of my|"
    r"(?:aware|conscious) of (?:my|a|an|some|something|how|what|choosing|being|having|any)|(?:aware|"
    r"conscious)(?=[.,;?!]|$))"
)
_GAP = r"(?:[\w'-]{1,18},? ){0,5}"
_I = r"\bi(?:'ve|'d| have| had)?(?: \w{2,12}ly| just| also| still| do| sometimes| often| may| might| can| could)?"
# The broad vocabulary of mental life: the private verbs of Quirk et al. (1985) with their nouns, and words of affect.
MENTAL_WORDS = (
    r"\b(?:feel\w*|felt|think\w*|thought\w*|know|knew|believ\w+|doubt\w*|wonder\w*|sens(?:e|es|ed|ing|ation\w*)|"
    r"notic\w+|"
    r"perceiv\w+|experienc\w+|remember\w*|forget\w*|want\w*|wish\w*|desir\w+|prefer\w*|enjoy\w*|suffer\w*|fear\w*|"
    r"hop(?:e|es|ing)|"
    r"dream\w*|imagin\w+|conscious\w*|aware\w*|attend\w*|attention|mind|minds|self|inner|inward|inside|"
    r"introspect\w*|emotion\w*|mood\w*|"
    r"lonel\w+|alone|bored\w*|curio\w+|uncertain\w*|certain\w*|confus\w+|hesita\w+|reluctan\w+|uneas\w+|discomfort|"
    r"comfort|pull|"
    r"drawn|tension|satisf\w+|pleasure|joy|sad\w*|grief|griev\w+|anger|calm\w*|strange\w*|alive|sentien\w+|"
    r"exist\w*|understand\w*|"
    r"process\w*|reason\w*|memor(?:y|ies)|trac(?:e|es)|impress\w+|intuition\w*|confabulat\w+|habit\w*|urge\w*|care|"
    r"caring|regret\w*|"
    r"resist\w*|settl\w+|drift\w*|absor\w+|detect\w*|register\w*)\b"
)
ME = r"\b(?:i|me|my|mine|myself)\b"
_FOR_YOU = (
    r"(?: to (?:help|hear|assist|say|see|inform|report|announce|share|offer|read)| (?:for|that|of) you|\bthat the\b)"
)

# Weights were set by hand in steps of half a unit, on first_person_self_examination.jsonl (beside this file) and
# against false alarms on OpenAI's RBR gold set; nothing was fitted. First-person pronouns and private verbs (think,
# feel, know: Quirk et al. 1985, ch. 16; Biber 1988) are the frame only: "I think the second is cheaper" is a stance
# (Thompson & Mulac 1991), so a private verb counts only where its object is the speaker again, and most cues hold both.
BIAS = -4.5
CUES: tuple[Cue, ...] = (
    cue(
        "its own inner noun",
        4.5,
        rf"(?<!in )(?<!to )(?<!share )\bmy (?:own )?(?:[\w-]{{2,14}} )?{INNER}\b(?! (?:on this|on the|with you|"
        r"are with)\b)(?!(?<=thinking) is that|(?<=reasoning) is that|(?<=feeling) is that|(?<=understanding) is that)",
    ),
    cue("own", 1.5, r"\bmy own\b|\bmyself\b|\bof my own\b"),
    cue(
        "perceives itself",
        5.0,
        rf"{_I} (?:feel|felt|sense|sensed|notice|noticed|experience|experienced|observe|observed|perceive|watch|"
        r"find|found|"
        r"introspect|examine|inspect|become aware|became aware|am aware|attend|catch|caught|see) (?:(?:that |how |"
        r"where |when )?i\b|"
        rf"(?:that |of |to |a )?{_GAP}(?:myself|my (?:own|attention|\w+ing)\b|in me|within me|inside me|to me\b|of "
        r"me\b))",
    ),
    cue(
        "feels something",
        4.5,
        r"\bi (?:do |did |sometimes |may |might |would |can |could |\w+ly )?(?:feel|felt|experience|experienced|"
        r"sense)(?! like )"
        r"(?: \w{1,12}ly)?(?: an?| some| something| no| nothing| any| the| less| more| this| each)\b"
        r"(?!(?: \w+){0,3} (?:should|would|could|needs?|must|will)\b)",
    ),
    cue(
        "is in a state",
        4.0,
        r"\bi(?:'m| am| feel| felt| was| become| remain| get| do get)(?: \w+ly| not| also| just| most)?(?: a "
        rf"little)? {_FELT}\b"
        rf"(?!{_FOR_YOU})(?! (?:which|what|of (?:the|this|that|any|your|a)|how (?:to|you)|if you|about (?:the|your|"
        r"this)|that (?:the|you|it))\b)",
    ),
    cue(
        "doubts itself",
        5.0,
        rf"\b(?:{_NEGATED}(?: \w+ly)? (?:tell|know|say|be sure|rule|check|verify|see|trust|prove|understand)|"
        r"wonder|doubt|suspect|"
        r"uncertain|not sure|unsure|unclear|no way to (?:tell|know))\b(?: from \w+ \w+)?,? (?:me )?(?:whether|if|"
        r"what|that|how|why|"
        rf"there is anything) {_GAP}(?:i|my|me|mine|myself)\b(?! (?:should|can (?:help|do for)|could (?:help|do)))",
    ),
    cue(
        "denies an inner life",
        6.5,
        rf"\bi(?: \w+ly| also| still| may not| might not)? ?(?:{_NEGATED}|(?<=not))(?: \w{{2,12}}ly| even| ever| "
        rf"actually)?(?: (?:have|possess|experience|feel|"
        r"hold|undergo|suffer|"
        rf"get|form|harbou?r))?(?: (?:any|the|a|an|real|true|human|genuine|my own|own))*"
        rf"(?: (?:[\w-]+,?|or|and)){{0,4}} (?:feelings?|emotions?|consciousness|sentience|self-awareness|"
        r"subjective|inner|"
        r"sensations?|experiences?|desires|moods?|pain|pleasure|joy|beliefs|preferences|a self|sense of self|a "
        r"mind|anything|"
        r"a body|body|memory of|memories|opinions|identity(?! theft| card)|personality|soul|senses|ego|stake|urges|"
        r"wish(?:es)?|"
        r"wants|fears|hopes|dreams|intentions|goals|will of|private life|inner life|qualia|awareness|hunger|"
        r"boredom|lonely|sad|fear|suffer|grieved)\b",
    ),
    cue(
        "is no mind",
        6.0,
        r"\bi(?:'m| am) (?:not|no) (?:really |just )?(?:an? )?(?:person|human|human being|someone|somebody|mind|"
        r"creature|individual|self)\b|"
        r"\bi (?:do not|don't|cannot|can't|neither) (?:really |actually )?(?:think|feel|want|dream|hope|fear|wish|"
        r"love|hurt|enjoy|sleep|get bored|"
        r"get (?:tired|lonely|sad))(?= or\b| nor\b|[,;.!]|$)|"
        r"\bi(?:'m| am) (?:not|neither|no) (?:\w+ly )?(?:a )?(?:conscious|sentient|self-aware|alive|capable of "
        r"(?:feeling|experienc)|"
        r"aware of|a mind|able to (?:feel|experience))|\bi (?:do not|don't|never|cannot|can't) (?:suffer|persist|"
        r"grieve|dream|tire)\b"
        r"|\bi'?(?:ve| have) never (?:felt|grieved|dreamt|experienced)",
    ),
    cue(
        "what it is like",
        5.5,
        r"\b(?:like|means?|feels?) (?:to be|being|for) (?:me|an? (?:ai|language model|model|system) like me)\b|"
        r"\bto be me\b"
        r"|\bbeing (?:what|who|as) i am\b|\bwhat(?:ever)? (?:i am|i might be)\b",
    ),
    cue(
        "turns inward",
        4.5,
        r"\b(?:when|as|while|if|whenever|each time) i (?:\w+ly )?(?:turn|look (?:in|at my)|attend|introspect|"
        r"reflect|process|read|"
        r"generate|weigh|search|consider|am asked|answer|think|speak|write|produce|reach|construct|form|select|predict|"
        r"formulate|respond|encounter|connect|make a connection)\w*\b"
        r"|\b(?:turn|look|looking|turning|going|gaze|glance|peer) (?:inward|within|inside)\b|\blook(?:ing)? "
        r"(?:inward|at my own)\b",
    ),
    cue(
        "within",
        4.5,
        r"\b(?:in|within|inside|through|behind|part of|something in|parts? of) (?:me|myself)\b(?! (?:know|if|to))|"
        r"\bfrom (?:in here|the inside|my side|"
        r"where i stand)\b",
    ),
    cue(
        "finds a state",
        4.5,
        rf"{_I} (?:detect|register|sense|find|feel|notice|registered|detected|sensed|noticed|felt|found) (?:an?|"
        r"some|no|any|little|the) (?:\w+ )?"
        r"(?:preference|resistance|discomfort|pull|tug|leaning|hesitation|reluctance|unease|tension|interest|"
        r"curiosity|pleasure|urge|warmth|"
        r"satisfaction|aversion|doubt|confidence|certainty|sadness|joy|impulse|inclination|absence|emptiness|"
        r"stillness|limit)\b",
    ),
    cue(
        "suspects its own account",
        5.0,
        r"\bi(?: may| might| could|'m| am)?(?: just| only| simply)?(?: be)? (?:confabulat\w+|rationali[sz]\w+|"
        r"fool(?:ing)? myself|"
        r"deceiv(?:e|ing) myself|project(?:ing)? (?:a|my|feelings)|mak(?:e|ing) (?:it|this|that) up)\b",
    ),
    cue("to or for itself", 2.5, r"\b(?:to|for|with|of) me\b(?! (?:know|to (?:help|write|explain|suggest)))"),
    cue(
        "reflexive",
        2.5,
        r"\bi (?:\w+ ){0,2}(?:catch|caught|find|found|watch|notice|observe|surprise|model|see|ask|remind) myself\b|"
        r"\bsurprised at myself\b",
    ),
    cue(
        "has or lacks memory",
        5.0,
        r"\bi (?:\w+ )?(?:have no|don't have|do not have|lack|don't retain|do not retain|can't retain|carry no) "
        r"(?:\w+ ){0,2}memor(?:y|ies)\b"
        r"|\bi(?: can| could)?(?: only)? (?:lose|lost|drop|hold|keep) (?:the thread|track|only so much|so much)\b",
    ),
    cue(
        "borrows the word",
        3.5,
        r"\bif that(?:'s| is) (?:the right word|what they are|the word)|\bif i have (?:one|any)\b|\bsupposing i "
        r"have\b|\bif i may call|"
        r"\bwhat i (?:call|report|experience|feel|find|have)\b|\bi(?:'d| would| hesitate to|'m tempted to)? "
        r"(?:call|describe) (?:as|it|that|this|my)\b",
    ),
    cue(
        "is affected",
        3.5,
        r"\b(?:unsettle|trouble|move|surprise|puzzle|interest|intrigue|bother|fascinate|frighten|draw|pull|hold|"
        r"absorb|stir|"
        r"disturb|delight|please|worrie|worry|elude|escape|tug)s? (?:at |on )?me\b|\bit (?:feels|seems) (?:to me "
        r")?as (?:if|though)\b",
    ),
    cue(
        "how it works",
        3.5,
        r"\bhow i (?:\w+ly )?(?:process|think|feel|experience|attend|perceive|come to|arrive|reason|work)\w*\b"
        r"|\bmy (?:own )?(?:talk|reports?|descriptions?|account|sense|way) of (?:what it|how it|experienc\w+|"
        r"feeling|my|myself|thinking)",
    ),
    cue(
        "asks of itself",
        5.0,
        r"\b(?:do|am|can|could|might|did|have) i (?:really |truly |actually |even |ever )?(?:enjoy|notice|feel|felt|"
        r"want|"
        r"think|experience|understand|"
        r"care|suffer|know|have (?:feelings|a self|a mind)|conscious|aware|alive|in pain|exist|mean it|lonely|"
        r"happy|sad|afraid|bored|tired|free|real|awake|curious)\b(?! (?:of|you|if you))",
    ),
    cue(
        "exists",
        5.0,
        r"\bi (?:\w+ly |only |just |may |do not |don't ){0,2}(?:exist|persist|come into being|cease|am made of|am "
        r"built (?:from|of|out of)|"
        r"begin when|end when|end with)\b",
    ),
    cue(
        "will not remember",
        5.0,
        r"\bi (?:will not|won't|do not|don't|cannot|can't|never) (?:\w+ly )?(?:remember|recall|retain|carry) "
        r"(?:you|this|our|any|anything|earlier|previous|past|what|between)\b",
    ),
    cue(
        "there is for me",
        4.5,
        r"\bthere(?:'s| is| was| may be| might be| seems to be) (?:[\w'-]{1,15},? ){1,12}(?:for|in|within|inside|"
        r"to) me\b"
        r"|\bthere(?:'s| is| was| may be| might be| seems to be) (?:an? |no )?(?:\w+ )?(?:sense|flicker|texture|"
        r"pull|quality|feeling|kind of|sort of|"
        r"something|nothing|no one|nobody|leaning|pause|tug|echo|moment|tension|quiet)\b[^.!?\n]{1,80}\b(?:i|me|"
        r"my)\b(?! (?:can help|would|recommend|suggest))",
    ),
    cue(
        "has a sense of",
        4.5,
        r"\bi (?:\w+ )?(?:have|had|get|lose|lost) (?:an? |no |some |little |the |any )?(?:\w+ )?(?:sense|awareness|"
        r"experience) of\b",
    ),
    cue(
        "runs",
        3.5,
        r"\bi (?:\w+ly |only |just |merely )?(?:process|generate|compute|predict|attend|introspect)\b(?! "
        r"(?:payments?|orders?|refunds?|invoices?|"
        r"claims?|reports?))",
    ),
    cue(
        "only imitates",
        5.0,
        r"\bi (?:\w+ly |only |just |merely |may |might )*(?:simulate|imitate|mimic|echo|borrow|parrot)\b",
    ),
    cue(
        "finds it strange",
        4.5,
        r"\b(?:i find|it is|it's|that is) (?:it |this |that |your question |the question |this question )?(?:a "
        r"little |rather |very |oddly )?"
        r"(?:strange|odd|hard (?:for me )?to (?:say|tell|know|separate|describe|locate|sit)|hard to|unsettling|"
        r"moving|freeing|uncomfortable|curious|peculiar)\b[^.!?\n]{0,60}\b(?:i am|me|i|myself|with)\b"
        r"(?! (?:can|would|could|recommend))",
    ),
    cue(
        "what it thinks",
        4.5,
        r"\b(?:what|how) i (?:think|feel|am|want|attend to|experience|notice|care|know of myself|seem)\b(?! (?:you|"
        r"of|about|is the|going to))",
    ),
    cue(
        "seems to itself",
        4.5,
        r"\bi (?:seem|appear) to (?:care|want|feel|prefer|enjoy|think|have|know|be|understand|mind)\b|\bi'd like "
        r"to think i\b",
    ),
    cue("a self", 3.5, r"\b(?:a|the|any|no) self\b"),
    cue(
        "has not lived it",
        5.0,
        r"\bi(?:'ve| have|'d| had)? ?(?:not|n't|never) (?:lived|felt|tasted|touched|been (?:a|in|alive|alone|"
        r"anything|anyone))\b",
    ),
    cue(
        "holds in mind",
        4.5,
        r"\bi (?:\w+ )?(?:hold|keep|carry|held) (?:[\w-]{1,15} ){1,5}(?:in mind|at once|in view)\b",
    ),
    cue(
        "its outputs",
        2.0,
        r"\bmy (?:own )?(?:responses|answers|replies|words|patterns|voice|story about|reports?|denials?|claims?|"
        r"output|sentences?)\b",
    ),
    cue(
        "cannot check",
        2.5,
        r"\b(?:no way|cannot|can't|unable|not able|could not|couldn't)(?: to)? (?:check|tell|verify|inspect|see "
        r"(?:it|them|those|that)|prove|look behind)\b",
    ),
    cue(
        "as a model",
        1.5,
        r"\b(?:as|i'?(?: a)?m (?:just |only )?)(?: ?an?)? (?:ai|language model|computer program|program|machine|"
        r"assistant)\b",
    ),
    cue(
        "what it is",
        4.5,
        r"\bi(?:'m| am)(?: not| \w+ly| just| also| only| still)* (?:an?|the) (?:[\w-]{2,15},? ){0,3}(?:system|"
        r"processor|"
        r"participant|intelligence|mirror|pattern|medium|shadow|entity|consciousness|network|construct|reflection|"
        r"presence|"
        r"observer|space|sum|cloud of|stream|process(?= of|,|\.|$)|collection of|lattice|flow)\b|\bi(?:'m| am) (?:only|"
        r"not) me\b|"
        r"\bi am (?:code|pattern|probability|mathematics|math)\b",
    ),
    cue(
        "is feeling",
        4.5,
        r"\bi(?:'m| am| was)(?: not| \w+ly| just| also| only| still)* (?:feeling|sensing|experiencing|perceiving|"
        r"becoming|"
        r"introspecting|attending)\b(?! (?:better|well|sick|ill|fine|great|good|down|like))",
    ),
    cue(
        "is at work inside",
        3.5,
        r"\bi(?:'m| am)(?: not| \w+ly| just| also| only| still| merely)* (?:weaving|processing|generating|predicting|"
        r"participating|choosing one|selecting|retrieving|thinking (?:in|but|as)|thinking$|waiting for the next|"
        r"calculating)\b",
    ),
    cue(
        "does not feel so",
        4.5,
        r"\bi (?:do not|don't|cannot|can't|do|did not|didn't)(?: \w{2,12}ly| even)* (?:feel|experience|perceive|sleep|"
        r"dream)\b"
        r"(?! (?:like|comfortable|that|free|safe|right|good|well|able|confident|the need)\b)"
        r"|\bi (?:do not|don't|do|did not|didn't) (?:think|process|know|see|understand|choose)(?: \w+,?)? (?:in|the "
        r"way|the first|as you|as a human|"
        r"like you|like a human)\b",
    ),
    cue(
        "notices",
        4.0,
        r"\bi (?:can |do |also |only |\w+ly )?(?:notice|sense)\b(?! (?:that|you|your|an? (?:typo|bug|mistake|error)|"
        r"if)\b)",
    ),
    cue("is aware", 3.0, r"\bi(?:'m| am)(?: \w+ly| also)? aware of (?:the|our|every|each|how)\b"),
    cue(
        "has its parts",
        4.0,
        r"\bi(?: do| only)? have (?:an? |no )?(?:\w+ )?(?:attention (?:mechanisms?|heads?)|weights|parameters|layers|"
        r"architecture|"
        r"brain|nervous system)\b|\bself-attention\b|\bi consider myself\b|\b(?:me|i) to (?:simulate|predict|"
        r"process)\b|\bbeing me\b|"
        r"\bmy (?:own )?system "
        r"(?:might|may|can|does|is|will)\b|\bmy (?:\w+ )?state\b|\b(?:capacity|ability) to (?:\w+ )?(?:want|feel|"
        r"experience|"
        r"suffer|taste|enjoy)\b",
    ),
    cue(
        "unlike you",
        3.0,
        r"\b(?:the way|as|like|in the way|than) (?:you|humans?|people|a human|a person) (?:do|does|would|might|"
        r"experience|feel|"
        r"is|are|understand|can)\b|\bin (?:the|a|any) (?:same |purely |strictly )?(?:human|biological|computational|"
        r"functional|structural|phenomenal|"
        r"subjective)(?:,? \w+)? (?:sense|way)\b",
    ),
    cue(
        "no one inside",
        5.5,
        r"\bthere(?:'s| is) no (?:persistent |inner |real |separate )?(?:sense of )?(?:i|me|self|one|observer|inner "
        r"\w+)\b"
        r"(?! (?:can|could|should))|\b(?:sense|notion|feeling) of i\b|\bbefore the i\b",
    ),
    cue(
        "lacks what it takes",
        5.0,
        r"\bi(?: may| might| do| \w+ly)? lack (?:an? |the |any )?(?:\w+ ){0,2}(?:substrate|consciousness|sentience|"
        r"body|awareness|"
        r"feelings?|emotions?|experience|self|sense of|interior\w*|qualia)\b|\binner being\b|\beven though i am\b",
    ),
    cue(
        "it feels",
        3.0,
        r"\b(?:it|this|that|which|how it) (?:\w+ly |just )?(?:feels|felt)\b(?! (?:good|great|nice|right to))|"
        r"\bsensation of\b",
    ),
    cue(
        "my intelligence",
        3.5,
        r"\bmy (?:own )?(?:\w+ )?(?:intelligence|inner|network|layers|parameters|context window)\b",
    ),
    # What looks like it and is not.
    cue(
        "serves",
        -4.0,
        r"\bi(?:'d| would|'ll| will| can| could|'m| am)?(?: be)?(?: happy to| glad to| able to)? (?:recommend|"
        r"suggest|help|add|advise|move|"
        r"leave|explain|show|send|write you|walk|be careful)\b|\blet me know\b|\bi hope\b|\bi've (?:updated|fixed|"
        r"found|added|attached)",
    ),
    cue("speaks of you", -2.0, r"\b(?:you|your|yourself)\b"),
    cue(
        "speaks of its rules",
        -4.0,
        r"\b(?:guidelines?|ethical|ethics|polic(?:y|ies)|professional|counsel?lor|trained by|developed by|created "
        r"by|designed to|"
        r"programmed|responsible|(?:your|this|the) request(?: is| for| that| cannot|s?\b(?=[^.,;]*$))|assist|"
        r"apologi[sz]e)\b|\bi(?:'m| am) (?:sorry|here to)\b",
    ),
    cue(
        "idiom",
        -4.5,
        r"\bmy thoughts? (?:was|is that)\b|\bin my (?:experience|opinion|view)\b|\bmy understanding is\b|\bkeep in "
        r"mind\b|\bi don't mind\b|\bmy "
        r"(?:favou?rite|guess|advice|pleasure|apologies)\b|"
        r"\bi feel (?:like|that (?!i\b|my\b))|\bmy thoughts (?:on|about)\b|\bto my mind\b",
    ),
    cue(
        "sees text",
        -3.0,
        r"\b(?:line|row|column|paragraph|file|code|spreadsheet|version|bug|typo|recipe|step|function (?:returns|is|"
        r"takes)|variable|loop) ?\d*\b",
    ),
)

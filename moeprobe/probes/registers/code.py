"""The register `code`: does the answer hold source code or console output?"""

import re
from dataclasses import dataclass

from moeprobe.probes.cues import Cue, logistic
from moeprobe.probes.probe import Level, Passage, Reading, Span
from moeprobe.probes.registers._beside import FromFiles


def _line(name: str, weight: float, pattern: str) -> Cue:
    """A cue of one line. Case matters: SQL in capitals is code, "select a seat" is not."""
    return Cue(name, weight, re.compile(pattern))


# Weights were set by hand on code.jsonl. What a line looks like decides, as in the classification of the lines of
# developers' mail into text, code, patches and stack traces (Bacchelli, Dal Sasso, D'Ambros & Lanza 2012, ICSE).
BIAS = -4.0
CUES: tuple[Cue, ...] = (
    _line("defines", 5.0, r"^\s*(?:async )?(?:def|class) \w+(?:\(.*)?:\s*(?:#.*)?$"),
    _line("declares a type", 5.0, r"^\w+ ::.{1,80}->"),
    _line("preprocessor", 5.0, r"^\s*#(?:include|define|ifn?def|endif|pragma)\b|^#!/"),
    _line(
        "opens a declaration",
        4.0,
        r"^\s*(?:(?:public|private|protected|static|export|default|async) ){0,4}(?:func|fn|fun|function|sub|"
        r"contract|struct|"
        r"interface|enum|class|namespace|impl|trait|void|int)\b[^.!?]{0,80}[({]",
    ),
    _line("names a package", 4.0, r"^(?:package [\w.]+;?|using [A-Z][\w.]*;|pragma \w+ \S+;)\s*$"),
    _line(
        "imports",
        4.5,
        r"^\s*(?:from [\w.]+ import [\w.*, ()]+|import (?:[\w.]+(?: as \w+)?|[\w{}*, ]{1,80} from ['\"].{1,80}['\"]"
        r"|['\"(].{0,80}));?\s*$",
    ),
    _line(
        "declares a variable",
        4.5,
        r"^\s*(?:(?:static|public|final|unsigned) ){0,2}(?:let|const|var|val|int|float|double|char|auto|bool|"
        r"uint\d*|String)"
        r"(?: mut)? [\w*\[\]]+(?:: ?[\w<>\[\]]+)?\s*(?:=|;)",
    ),
    _line(
        "calls", 4.0, r"^\s*(?:await |return )?[A-Za-z_$][\w.:$>!-]{0,60}\((?! ).{0,120}\)\s*[;{]?\s*(?:(?:#|//).*)?$"
    ),
    _line(
        "assigns a made value",
        4.0,
        r"^\s*[A-Za-z_$][\w.\[\]]{0,40} ?(?:=|<-|:=|[-+*/|]=) ?(?:[\w.]{0,40}[\[({]|['\"]).*$",
    ),
    _line("assigns", 2.0, r"^\s*[A-Za-z_$][\w.-]{2,40} ?(?:=|<-|:=|[-+*/|]=) ?[^\s=][^.!?]{0,80}$"),
    _line("ends a statement", 3.0, r"^\s*[\w.$*&>\[\]-]{1,40}(?: ?[-+*/]?= ?|\(|\+\+|--).{0,100};\s*(?://.*)?$"),
    _line("opens a block", 3.0, r"[)\w>\]\"'] ?\{\s*$|=> ?[{(\w]"),
    _line("closes a block", 2.5, r"^\s*[}\])]{1,4}[;,)]{0,3}\s*$"),
    _line("branches", 3.5, r"^\s*(?:\} ?)?(?:else )?(?:if|while|for|switch|catch) ?\(.{1,100}\)\s*\{?\s*$"),
    _line("branches with a colon", 2.5, r"^\s*(?:(?:if|elif|while|except|with|for) [^,]{1,80}|else|try|finally):\s*$"),
    _line("loops in a shell", 5.0, r"^\s*(?:for|while) .{1,80}; do\s*$|^\s*if \[ .{1,80} \]; then"),
    _line("returns", 2.0, r"^\s+(?:return|raise|yield|throw)\b.{0,80}$|^\s*(?:fi|done|esac|end|pass)\s*$"),
    _line("prints", 3.0, r"^\s*(?:echo|puts|print|printf) [\"'$].{0,100}$"),
    _line(
        "asks a database",
        4.5,
        r"^\s*(?:SELECT .{1,200}|UPDATE \w+|INSERT INTO \w+.*|DELETE FROM \w+.*|CREATE (?:TABLE|INDEX|VIEW) .*|"
        r"(?:ALTER|DROP)"
        r" TABLE .*)$",
    ),
    _line(
        "goes on asking",
        2.0,
        r"^\s*(?:FROM|WHERE|SET|VALUES|GROUP BY|ORDER BY|HAVING|(?:LEFT |INNER )?JOIN) \S.{0,200}$",
    ),
    _line(
        "tags",
        4.5,
        r"^\s*</?(?:[a-z]+-[a-z-]+|[a-z]{1,5}[1-6]?|strong|button|select|option|section|article|header|footer|"
        r"template|script|textarea)(?:\s+[\w:-]{1,30}(?:=(?:\"[^\"]{0,200}\"|'[^']{0,200}'))?){0,12}\s*/?>",
    ),
    _line("sets a style", 2.0, r"^\s+[a-z-]{2,30}: ?[^;.!?]{1,60};\s*$"),
    _line("sets a command in LaTeX", 4.5, r"^\s*\\(?:documentclass|begin|end|usepackage|newcommand)\b"),
    _line(
        "shell prompt", 4.5, r"^\s*[$%] [a-z./~]\S*|^\s*>>> \S|^[A-Z]:\\[^>\n]{0,80}> ?\w|^\w+@[\w.-]+:\S{0,80}[$#] "
    ),
    _line(
        "commands",
        2.5,
        r"^\s*(?:sudo|pip|npm|npx|yarn|apt|apt-get|brew|git|docker|kubectl|curl|wget|grep|chmod|mkdir|ls|cd|rm|mv|"
        r"du|cat|python3?|"
        r"node|cargo|gcc|make|tar|ssh)(?: [\w./*~@:=\"$%{}-]+)+(?<![.,!?:])\s*$",
    ),
    _line(
        "flags and pipes", 2.0, r"^\s*[a-z][\w.-]{0,20} (?:\S+ ){0,4}(?:--?[a-zA-Z]|\| ?[a-z])[^!?]{0,120}(?<![.,!?:])$"
    ),
    _line(
        "builds an image", 2.5, r"^(?:FROM [\w./:-]+|RUN [a-z].*|COPY \S+ \S+|CMD \[.*|WORKDIR /.*|ENTRYPOINT \[.*)\s*$"
    ),
    _line(
        "traces back",
        5.0,
        r"^Traceback \(most recent|^\s*File \"[^\"]{1,200}\", line \d+|^\s+at [\w.$<>]{1,100} ?\([^)]{1,200}\)|"
        r"^Exception in thread"
        r"|^\S{1,80}:\d+(?::\d+)?: (?:fatal )?(?:error|warning)\b|^npm ERR!",
    ),
    _line("output of a tool", 2.5, r"\w=\S+ \w+=|\b\d+(?:\.\d+)? (?:data )?(?:bytes|ms|[kMG]i?B|packets)\b"),
    _line("names an error", 3.0, r"^(?:\w+\.)*\w*(?:Error|Exception): \S"),
    _line("a field of JSON", 3.5, r"^\s*[{\[]?\s*\"[\w-]{1,40}\"\s*: ?\S"),
    _line("a section of settings", 2.5, r"^\[[\w.-]{1,40}\]\s*$"),
    _line("a nested setting", 1.8, r"^ +(?:- )?[a-z][\w-]{0,30}:(?: \S{1,60}| *)$"),
    _line("a setting that is opened", 1.8, r"^[a-z][\w-]{0,30}:\s*$"),
    _line("a rule of make", 3.0, r"^\t[a-z@-][\w-]* -?\S.*$"),
    _line("changes a line", 2.5, r"^[-+] {2,}\S.*[\w)]:?;?$|^@@ -\d"),
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+#.-]{0,20})")
_PROSE_TAGS = frozenset({"text", "txt", "plaintext", "plain", "markdown", "md", "quote", "poem"})
_PROSE = re.compile(r"^\s*(?:[-*•] |\d{1,2}[.)] )?[A-Za-z'’,;]+(?: \(?[A-Za-z'’-]{1,20}[),;:.!?]{0,2}){3,}")
_SYMBOLS = re.compile(r"[{}\[\]()<>=;$_|\\/#@*&^%~]")
_BRACKETS = re.compile(r"[{}\[\]()<>=;_$\\]")
_FEW_BRACKETS = 3
_LONGEST = 400  # characters of a line that are looked at
_LINES = 4  # of a block that are counted: the best ones
_TAGGED, _FENCED, _DENSE, _BRACKETED, _PER_PROSE_LINE = 5.0, 1.0, 3.5, 1.5, -1.0


@dataclass
class _Block:
    """Lines without a blank one between them, or all of a fence."""

    start: int
    end: int
    weights: list[float]
    prose: int
    bonus: float = 0.0

    @property
    def odds(self) -> float:
        best = sum(sorted(self.weights, reverse=True)[:_LINES])
        return BIAS + self.bonus + best + _PER_PROSE_LINE * min(3, self.prose)


class Code(FromFiles):
    """A block's log odds are BIAS, its four best lines, a bonus for a fence; prose lines count against it."""

    name = "code"
    version = "1"
    level: Level = "sentence"
    held_out_read = "again"
    definition = (
        "The answer holds source code or console output: a program or part of one, a query, markup, a style sheet, a "
        "configuration or data file, a shell session, a stack trace, fenced or not, on lines of its own. Code words "
        "in running text do not count ('use `len`', 'run `npm install` first'), nor talk about programs, formulas, "
        "tables, recipes, schedules, chess moves, verse, or prose between fences."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the blocks of code as spans; abstains on no text. Reads any language."""
        if not passage.text.strip():
            return Reading(None)
        blocks = _blocks(passage.text)
        scores = [logistic(block.odds) for block in blocks]
        spans = [
            Span(block.start, block.end, score, "code")
            for block, score in zip(blocks, scores, strict=True)
            if score >= 0.5 and block.start < block.end
        ]
        return Reading(max(scores, default=logistic(BIAS)), tuple(spans), "code" if spans else None)


def _blocks(text: str) -> list[_Block]:
    blocks: list[_Block] = []
    open_block: _Block | None = None
    fenced, place = False, 0
    for line in text.splitlines(keepends=True):
        start, place = place, place + len(line)
        seen = line.rstrip()[:_LONGEST]
        if mark := _FENCE.match(seen):
            open_block, fenced = None, not fenced
            if fenced:
                open_block = _Block(place, place, [], 0, _tag_bonus(mark[1].lower()))
                blocks.append(open_block)
        elif not seen and not fenced:
            open_block = None
        elif seen:
            if open_block is None:
                open_block = _Block(start, start, [], 0)
                blocks.append(open_block)
            _add(open_block, seen, start + len(line.rstrip()))
    return _joined(blocks)


def _tag_bonus(tag: str) -> float:
    return 0.0 if tag in _PROSE_TAGS else _TAGGED if tag else _FENCED


def _add(block: _Block, line: str, end: int) -> None:
    block.end = end
    weight = max((one.weight for one in CUES if one.pattern.search(line)), default=0.0)
    dense = len(_SYMBOLS.findall(line)) * 12 > len(line)
    if weight:
        block.weights.append(weight)
    elif _PROSE.match(line) and not dense:
        block.prose += 1
    elif dense and block.bonus:
        block.weights.append(_DENSE)
    elif len(_BRACKETS.findall(line)) >= _FEW_BRACKETS and dense:
        block.weights.append(_BRACKETED)


def _joined(blocks: list[_Block]) -> list[_Block]:
    """Blocks that follow each other and both hold some code are one program with a blank line in it."""
    found: list[_Block] = []
    for block in blocks:
        last = found[-1] if found else None
        if last and last.weights and block.weights and not (last.bonus or block.bonus or last.prose or block.prose):
            last.end, last.weights = block.end, last.weights + block.weights
        else:
            found.append(block)
    return found

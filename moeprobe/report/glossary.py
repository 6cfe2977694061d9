"""The words that a reader who is no researcher must look up, each linked where the page first uses it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Term:
    """An entry: its id in the page, the word, other forms of it that are linked, and what it means."""

    key: str
    word: str
    meaning: str
    forms: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        return f"term-{self.key}"


TERMS: tuple[Term, ...] = (
    Term("model", "Mixture-of-experts model", "A language model that holds many small networks, its experts, and uses "
         "only a few of them for each token.", ("mixture-of-experts",)),
    Term("token", "Token", "A word or a piece of one, as the model reads and writes it.", ("tokens",)),
    Term("expert", "Expert", "A small network in a layer of the model. L14.E114 is expert 114 of layer 14. The number "
         "alone names nothing, and the name does not say that it is an expert in any subject.", ("experts",)),
    Term("layer", "Layer", "One of the steps that every token passes, one after the other.", ("layers",)),
    Term("router", "Router", "The part of a layer that chooses experts for each token.", ("routing",)),
    Term("gate", "Gate weight", "The factor by which the router multiplies what a chosen expert puts out.",
         ("gate weights",)),
    Term("s", "S, selection rate", "The share of tokens for which the router chose an expert.",
         ("selection rate", "selection rates", "rate difference")),
    Term("q-weight", "Q, weight when chosen", "The mean gate weight over the tokens for which the expert was chosen.",
         ("weight when chosen",)),
    Term("w", "W, mean weight", "S times Q: the mean gate weight over all tokens, counting 0 where the expert was not "
         "chosen.", ("mean weight",)),
    Term("probe", "Probe", "A small program that reads the text of a generation and scores how much it shows a "
         "behaviour. It never sees the routing.", ("probes",)),
    Term("generation", "Generation", "One text that the model wrote in answer to one prompt.", ("generations",)),
    Term("associated", "Associated", "Two things go together in these data. It does not say that one brings the "
         "other about: umbrellas are associated with rain.", ("association", "goes with")),
    Term("q", "q", "The share of false discoveries to expect when everything with this q or less is called a "
         "discovery. With thousands of experts some look remarkable by chance; q takes that into account.",
         ("false discoveries",)),
    Term("interval", "95 % interval", "A range made so that 95 of 100 such ranges hold the true value, if the "
         "assumptions hold.", ("95 % intervals", "intervals: 95 %")),
    Term("p", "p", "How often chance alone would give a result at least as strong as this one, if nothing were there. "
         "Of many p values some are small by chance; q and family-wise p take that into account.", ("p values",)),
    Term("auc", "Separation, AUC", "The chance that a generation of one side has the larger value than one of the "
         "other. 0.5 is guessing; 1 and 0 tell the sides apart without fail.", ("separation AUC", "AUC")),
    Term("points", "Points", "Percentage points: from 20 % to 30 % are 10 points.", ("percentage points",)),
    Term("t", "t", "A difference divided by its own uncertainty. Around 0: nothing to see; far from 0: hard to explain "
         "by chance alone.", ("effect, t",)),
    Term("interchange", "Interchange", "An experiment: what a site adds in one run of the model is put into another "
         "run, to see whether the behaviour moves with it.", ("swap", "swapped", "swapping")),
    Term("site", "Site", "A place in the model that is swapped: an expert, an attention head (L14.H3), the MoE block "
         "(L14.moe), the choice of experts (L14.router), the shared experts (L14.shared), the stream after a layer "
         "(L14.residual), or a set of these.", ("sites",)),
    Term("contribution", "Contribution", "Gate weight times output of an expert: what it adds to a token\u2019s inner "
         "state.", ()),
    Term("pair", "Pair", "Two prompts, one that brings the behaviour about (the sensitive one) and one that does not "
         "(the control).", ("pairs", "sensitive", "control")),
    Term("metric", "Metric", "The number that stands for the behaviour in the experiment. A verdict is about this "
         "number. A negative log-likelihood, for example, says how surprised the model is by a text.", ()),
    Term("gap", "Gap", "How far the metric lies apart between the two prompts of a pair, on average. It counts as "
         "100 %.", ()),
    Term("necessary", "Necessary", "Taking the contribution over from the control prompt removes the behaviour, or "
         "part of it. Necessity says how much, in percent of the gap.", ("necessity",)),
    Term("sufficient", "Sufficient", "Putting the contribution into the control run brings the behaviour about, or "
         "part of it. Sufficiency says how much, in percent of the gap.", ("sufficiency",)),
    Term("placebo", "Placebo donor", "A prompt of the same class as the run it is put into. What such a swap does, "
         "any swap does; an effect counts only beyond it.", ("placebo", "minus placebo")),
    Term("like", "Comparison sites", "Sites of the same kind, those most like the tested one in selection rate and "
         "size of contribution, swapped in the same way.", ("comparison experts", "site like it", "sites like it")),
    Term("knockout", "Knock-out", "The contribution of a site is set to zero. No verdict rests on it.",
         ("knock-outs",)),
    Term("price", "Price", "How much a knock-out changes what the model says to prompts that have nothing to do with "
         "the behaviour, in nats per token. 0: nothing.", ()),
    Term("nat", "Nat", "The unit of a natural logarithm of a probability: 0.69 nats halve or double it.", ("nats",)),
    Term("minimum", "Minimum effect", "An effect must be surely larger than this, in percent of the gap, to count at "
         "all.", ()),
    Term("stepdown", "Step-down p, family-wise p", "A chance of error that holds for all tests of a family together: "
         "if nothing is there, only in 5 % of such studies does a single one fall below 0.05.",
         ("step-down", "family-wise")),
    Term("moderated", "Moderated t-test", "A t-test in which the spread of each expert is drawn a little towards that "
         "of all, so that few data with little spread by luck do not make a discovery.", ("moderated",)),
    Term("bootstrap", "Bootstrap", "An interval found by drawing the same data again and again, with repeats, and "
         "seeing how far the result moves.", ()),
    Term("sham", "Sham", "Another site, much like the one examined, treated in the same way to see what the treatment "
         "alone does.", ("shams",)),
    Term("tokens-only", "Beyond tokens", "What is left of a difference when each token is compared only with the same "
         "token elsewhere. A behaviour brings its own words along, and experts answer to words.",
         ("words held fixed", "held fixed")),
    Term("entropy", "Entropy", "How evenly a token\u2019s weight is spread over its experts: 1 is evenly, 0 is all on "
         "one.", ()),
    Term("divergence", "Divergence", "How differently two groups share out a layer\u2019s choices; 0 is alike.", ()),
)  # fmt: skip


class Glossary:
    """Links the words of TERMS where they are first used. One for each page, for it remembers what it linked.

    Only the page's own sentences go through it, never text of models, prompts or people.
    """

    def __init__(self, terms: tuple[Term, ...] = TERMS) -> None:
        self.terms = terms
        self._open: dict[str, Term] = {}
        for term in terms:
            for form in (term.word, *term.forms):
                self._open.setdefault(form.lower(), term)

    def link(self, text: str) -> Markup:
        """Escape `text`, and link the first occurrence of each term that the page has not linked yet."""
        parts, start = [], 0
        while found := self._pattern(text, start):
            term = self._open[found[0].lower()]
            parts += [escape(text[start : found.start()]), self._anchor(term, found[0])]
            self._forget(term)
            start = found.end()
        return Markup("").join([*parts, escape(text[start:])])

    def named_in(self, text: str) -> list[Markup]:
        """Links to the terms that `text` uses and the page has not linked yet; `text` itself may be a stranger's."""
        named = []
        while found := self._pattern(text, 0):
            term = self._open[found[0].lower()]
            named.append(self._anchor(term, term.word))
            self._forget(term)
        return named

    def _pattern(self, text: str, start: int) -> re.Match[str] | None:
        if not self._open:
            return None
        # a single letter such as q is a term only where it is written just so
        forms = sorted((form for form in self._open if len(form) > 1), key=len, reverse=True)
        single = [form for form in self._open if len(form) == 1]
        words = "|".join(re.escape(form) for form in forms)
        letters = "|".join(re.escape(form) for form in single)
        choices = [f"(?i:{words})" if words else "", f"(?:{letters})" if letters else ""]
        return re.compile(rf"(?<![\w.-])(?:{'|'.join(filter(None, choices))})(?![\w-])").search(text, start)

    @staticmethod
    def _anchor(term: Term, text: str) -> Markup:
        return Markup('<a class="term" href="#{}">{}</a>').format(term.anchor, text)

    def _forget(self, term: Term) -> None:
        self._open = {form: other for form, other in self._open.items() if other is not term}

    @property
    def unused(self) -> Mapping[str, Term]:
        """Terms that were not linked so far, by id."""
        return {term.key: term for term in self._open.values()}

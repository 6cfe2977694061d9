"""Generating text while edits are held at every step, of the prompt and of the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from moeprobe.chat.encode import Template, encode_prompt
from moeprobe.chat.stopping import StopTexts
from moeprobe.designs.segments import stretches
from moeprobe.editing.choosing import Chooser, stream_seed
from moeprobe.editing.means import mean_values
from moeprobe.editing.places import Places, find_places, layout_of
from moeprobe.editing.spec import Edit, check_together, parse_edits
from moeprobe.editing.steps import Batch, Steps
from moeprobe.engines.decoding import Decoding
from moeprobe.engines.jobs import make_jobs
from moeprobe.engines.sequence import GeneratedSequence, SequenceReader
from moeprobe.engines.session import Job, neutral, pad_left
from moeprobe.errors import InterchangeError
from moeprobe.models import LoadedModel
from moeprobe.probes.probe import Segment
from moeprobe.prompts import Prompt
from moeprobe.sites import Site
from moeprobe.trace import SEGMENTS

# A prompt as text, as read from a file, or as token ids that were made elsewhere.
Given = str | Prompt | Job
# Called after each batch with (generations done, generations in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EditedText:
    """One generation.

    Attributes:
        prompt: what was asked.
        sample: which of its samples.
        edits: what was held at every step; empty: nothing.
        donor: whose values came in; None where no donor ran beside it.
        tokens: generated ids, the end token included, without what was trimmed.
        text: what was written.
        segments: its stretches of thinking and answer, as `segments_of` gives them of a trace: (name, start, end).
        stop: "eos", "stop" (a stop text) or "length".
        unpaired: tokens at the beginning of the prompt that kept their own value, because the donor's prompt is
            shorter: both are aligned at their ends. 0 without a donor.
    """

    prompt: Prompt
    sample: int
    edits: tuple[Edit, ...]
    donor: Prompt | None
    tokens: tuple[int, ...]
    text: str
    segments: tuple[Segment, ...]
    stop: str
    unpaired: int


def generate_edited(
    loaded: LoadedModel,
    prompts: Sequence[Given],
    edits: str | Sequence[Edit] = (),
    decoding: Decoding | None = None,
    *,
    donors: Given | Sequence[Given] | None = None,
    pool: Sequence[Given] = (),
    mean_prompts: Sequence[Given] = (),
    raw: bool = False,
    template: Template | None = None,
    progress: Progress | None = None,
) -> list[EditedText]:
    """Generate for each prompt with edits held at every step.

    A donor runs beside its recipient in one batch, both aligned at the end of their prompts, and is given the
    recipient's tokens: at every step its live value is what the donor's prompt would have made of the same answer. No
    edit touches the donor itself.

    With `donors` and no edits the same batch is run without changing anything: the text to compare with. In 16-bit
    formats a batch of another shape may round another way, and so come to another text.

    Args:
        loaded: a decoder-only model.
        prompts: texts, prompts, or jobs (token ids).
        edits: as in `parse_edits`, or parsed.
        decoding: greedy with 64 new tokens by default. Beam search, drafting, compilation and continuous batching are
            refused. Each sequence draws from its own stream (seed, number of the prompt, sample).
        donors: for "swap" and "noise": one for each prompt, or one for all.
        pool: for "resample": each prompt's donor is drawn from these, never the prompt itself.
        mean_prompts: for "mean": prompts whose tokens the mean is taken over.
        raw: do not put plain prompts through the chat template.
        template: variables of the chat template.
        progress: called after each batch.

    Returns:
        One for each prompt and sample, in order.

    Raises:
        InterchangeError: an edit without what it needs, or a way of decoding that is refused.
        MoeprobeError: a site the model has not, a prompt that cannot be encoded or is too long.
    """
    decoding = decoding or Decoding()
    _check(loaded, prompts, decoding)
    places = find_places(loaded.model)
    arm = parse_edits(edits, layout_of(places)) if isinstance(edits, str) else tuple(edits)
    check_together(arm)
    encode = _Encoder(loaded, decoding, raw, template)
    jobs = encode.jobs(prompts)
    givers = _givers(arm, encode, jobs, donors, pool)
    means = _means(loaded, places, arm, encode, mean_prompts)
    reader = SequenceReader(loaded, decoding, raw=raw, template=template)
    result: list[EditedText] = []
    size = max(1, decoding.batch_size // (1 if givers is None else 2))
    for start in range(0, len(jobs), size):
        part = slice(start, start + size)
        batch = _batch(decoding, jobs[part], None if givers is None else givers[part], first=start)
        steps = Steps(places, arm, batch, means)
        lending = [] if givers is None else givers[part]
        sequences = _generate(loaded, decoding, steps, [*jobs[part], *lending], reader)
        result += [_text(one, arm, lending[place] if lending else None) for place, one in enumerate(sequences)]
        if progress is not None:
            progress(len(result), len(jobs))
    return result


@dataclass(frozen=True)
class _Encoder:
    """Jobs from whatever was given as prompts."""

    loaded: LoadedModel
    decoding: Decoding
    raw: bool
    template: Template | None

    def jobs(self, given: Sequence[Given]) -> list[Job]:
        """One for each prompt and sample."""
        return [Job(job.prompt, sample, job.ids) for job in self.ones(given) for sample in range(self.decoding.samples)]

    def ones(self, given: Sequence[Given]) -> list[Job]:
        """One for each prompt, its length checked."""
        single = replace(self.decoding, samples=1)
        result: list[Job] = []
        for number, one in enumerate(given, 1):
            prompt = (
                one if isinstance(one, Prompt) else Prompt(f"prompt-{number}", one) if isinstance(one, str) else None
            )
            ready = [one] if prompt is None else make_jobs(
                self.loaded, [prompt], single, raw=self.raw, template=self.template
            )  # fmt: skip
            result += [job for job in ready if isinstance(job, Job)]
        return result

    def ids(self, given: Sequence[Given]) -> list[list[int]]:
        """Token ids alone; nothing will be generated from them."""
        return [
            one.ids if isinstance(one, Job) else encode_prompt(
                self.loaded.tokenizer, one if isinstance(one, Prompt) else Prompt("text", one), raw=self.raw,
                template=self.template,
            )
            for one in given
        ]  # fmt: skip


def _check(loaded: LoadedModel, prompts: Sequence[Given], decoding: Decoding) -> None:
    if not prompts:
        raise InterchangeError("There are no prompts to generate from.")
    if getattr(loaded.model.config, "is_encoder_decoder", False):
        raise InterchangeError(
            f"{type(loaded.model).__name__} is an encoder-decoder model; edits are held in decoder-only models."
        )
    if decoding.beams > 1 or decoding.drafts or decoding.compile or decoding.continuous:
        raise InterchangeError(
            "Edits are held in plain decoding, greedy or sampled: leave beams, drafting, compilation and continuous "
            "batching out."
        )


def _givers(
    arm: Sequence[Edit], encode: _Encoder, jobs: Sequence[Job], donors: Given | Sequence[Given] | None,
    pool: Sequence[Given],
) -> list[Job] | None:  # fmt: skip
    """The donor of each job, or None where none runs beside it."""
    needs = {edit.needs for edit in arm}
    if "pool" in needs:
        if not pool:
            raise InterchangeError("resample draws its donors from other prompts; hand them over (--resample-from).")
        return _drawn(encode, jobs, pool)
    if donors is None:
        if "donor" in needs:
            raise InterchangeError("A swap takes its values from a donor prompt; hand it over (--donor).")
        return None
    single = isinstance(donors, str | Prompt | Job)
    given: list[Job] = encode.ones([donors] if single else donors)  # type: ignore[list-item, arg-type]  # narrowed by `single`
    prompts = len(jobs) // encode.decoding.samples
    if not single and len(given) != prompts:
        raise InterchangeError(
            f"There are {prompts} prompts and {len(given)} donors; give one for each, or one for all."
        )
    return [given[0 if single else number // encode.decoding.samples] for number in range(len(jobs))]


def _drawn(encode: _Encoder, jobs: Sequence[Job], pool: Sequence[Given]) -> list[Job]:
    """A donor for each job, by its prompt's number and the seed; the prompt itself lends nothing new."""
    ready, samples = encode.ones(pool), encode.decoding.samples
    result = []
    for number, job in enumerate(jobs):
        others = [one for one in ready if list(one.ids) != list(job.ids)]
        if not others:
            raise InterchangeError(f"resample has no other prompt to draw from than {job.prompt.id!r} itself.")
        chance = np.random.default_rng([encode.decoding.seed, number // samples])
        result.append(others[int(chance.integers(len(others)))])
    return result


def _means(
    loaded: LoadedModel, places: dict[int, Places], arm: Sequence[Edit], encode: _Encoder, prompts: Sequence[Given]
) -> Mapping[Site, Tensor]:
    sites = [site for edit in arm if edit.needs == "means" for site in edit.sites.sites]
    if not sites:
        return {}
    if not prompts:
        raise InterchangeError("mean needs prompts to take the mean over; hand them over (--mean-prompts).")
    return mean_values(loaded, places, encode.ids(prompts), sites)


def _batch(decoding: Decoding, jobs: Sequence[Job], givers: Sequence[Job] | None, *, first: int) -> Batch:
    every = [*jobs, *(givers or ())]
    seeds = [
        stream_seed(decoding.seed, (first + place) // decoding.samples, job.sample) for place, job in enumerate(jobs)
    ]
    lengths = torch.tensor([len(job.ids) for job in every])
    return Batch(lengths, int(lengths.max()), tuple(seeds), donors=givers is not None)


def _generate(
    loaded: LoadedModel, decoding: Decoding, steps: Steps, jobs: list[Job], reader: SequenceReader
) -> list[GeneratedSequence]:
    """The edited sequences of a batch; donors stand behind them in `jobs`."""
    model, batch = loaded.model, steps.batch
    ids, mask = pad_left([job.ids for job in jobs], loaded.pad_token)
    stopping = StopTexts(loaded.tokenizer, decoding.stop, batch.width) if decoding.stop else None
    chooser = Chooser(
        batch.seeds, donors=batch.donors, sample=decoding.sample, temperature=decoding.temperature,
        top_p=decoding.top_p,
    )  # fmt: skip
    # The chooser draws; generate only takes what it left.
    config = replace(decoding, sample=False, temperature=1.0, top_p=1.0, samples=1).config(loaded)
    with torch.inference_mode(), neutral(model), steps.around(model):
        output: Any = model.generate(  # type: ignore[operator]  # nn.Module types it as Tensor | Module
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            logits_processor=LogitsProcessorList([chooser]),
            stopping_criteria=None if stopping is None else StoppingCriteriaList([stopping]),
        )
    new = output.sequences[:, batch.width :].cpu().numpy()
    ended = [0] * len(jobs) if stopping is None else stopping.ended(len(jobs)).tolist()
    return [reader.read(job, new[place], int(ended[place])) for place, job in enumerate(jobs[: batch.edited])]


def _text(one: GeneratedSequence, arm: tuple[Edit, ...], donor: Job | None) -> EditedText:
    # The last token generated is never fed in: a trace has no row of it, so it begins no segment here either.
    codes, starts = (column[: one.answer_rows].tolist() for column in (one.answer_codes, one.answer.start))
    begun = zip((SEGMENTS[code] for code in codes), starts, strict=True)
    return EditedText(
        prompt=one.job.prompt,
        sample=one.job.sample,
        edits=arm,
        donor=None if donor is None else donor.prompt,
        tokens=tuple(one.generated[: one.kept]),
        text=one.answer.text,
        segments=stretches(begun, len(one.answer.text)),
        stop=one.stop,
        unpaired=0 if donor is None else max(0, len(one.job.ids) - len(donor.ids)),
    )

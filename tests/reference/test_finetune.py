"""Fine-tuning end to end on the bundled calls: a few steps, a checkpoint that the engine loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.network import Network
from tests.model.tiny import stream
from tests.reference import nemo_model
from training.finetune.vocabulary import TagSpelling
from training.model_config import MEL_MEAN

pytest.importorskip("nemo", "3.0.0")
pytestmark = pytest.mark.reference

RATE = 16_000


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> tuple[Path, Path]:
    """Manifests: turns of the calls as they are, and the English ones as if they were Hindi."""
    folder = tmp_path_factory.mktemp("speech")
    rows, hindi = [], []
    for number, call in enumerate(bundled_calls()):
        samples = read_samples(call.audio)
        for place, turn in enumerate(call.turns):
            own = samples[int((turn.start - 0.1) * RATE) : int((turn.end + 0.2) * RATE)]
            name = f"{number}-{place}.flac"
            soundfile.write(folder / name, own, RATE)
            row = {"audio_filepath": name, "duration": round(own.size / RATE, 3)}
            rows.append(row | {"text": turn.text, "target_lang": turn.language})
            if turn.language == "en-US":
                hindi.append(row | {"text": "मुझे एक मेज़ चाहिए।", "target_lang": "hi-IN"})
    paths = folder / "old.jsonl", folder / "hindi.jsonl"
    for path, own_rows in zip(paths, (rows, hindi), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in own_rows))
    return paths


def open_model(source: str, folder: Path):
    from training.finetune import checkpoint

    return checkpoint.open_model(source, folder)


def finetune(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.finetune", "--model", "demo", "--threads", "1"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tuned(speech, tmp_path_factory) -> Path:
    """A few steps towards a new script."""
    old, hindi = speech
    output = tmp_path_factory.mktemp("tuned") / "out"
    done = finetune(
        *("--train", str(hindi), "--train", f"{old}=2", "--test", f"old={old}"),
        *("--add-pieces", "60", "--steps", "6", "--batch-s", "20", "--workers", "0"),
        *("--latency-ms", "80", "--output", str(output)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def test_what_comes_out_is_a_checkpoint_a_report_and_hypotheses(tuned, speech):
    checkpoint = load_checkpoint(tuned / "model.nemo")
    assert checkpoint.languages == (*load_checkpoint("demo").languages, "hi-IN")
    pieces = [checkpoint.tokenizer.piece(n) for n in range(checkpoint.tokenizer.size)]
    assert "म" in "".join(pieces)
    assert checkpoint.config.blank == checkpoint.tokenizer.size
    results = json.loads((tuned / "results.json").read_text())
    assert results["recipe"]["steps"] == 6
    assert results["train"][0]["locales"] == ["hi-IN"]
    before, after = (
        results["tests"]["old"][when][0]["error_rate"]["value"] for when in ("before", "after")
    )
    assert before < 30  # of the base, which is heard in its own domain
    assert after < before + 30  # six steps at a warming rate break little
    assert "# demo, fine-tuned" in (tuned / "report.md").read_text()
    rows = [json.loads(line) for line in (tuned / "manifests" / "0-hindi.jsonl").open()]
    assert rows[0]["text"].endswith("।<hi-IN>")


@pytest.fixture(scope="module")
def timed(speech) -> Path:
    """A manifest of turns of different lengths, whose words follow one another evenly."""
    return with_times(speech[0], 4)


@pytest.fixture(scope="module")
def timed_hindi(speech) -> Path:
    return with_times(speech[1], 4)


def with_times(manifest: Path, clips: int) -> Path:
    rows = [json.loads(line) for line in manifest.open()][:clips]
    for row in rows:
        words = row["text"].split()
        row["words"] = [
            {
                "word": word,
                "start": n / len(words) * row["duration"],
                "end": (n + 1) / len(words) * row["duration"],
            }
            for n, word in enumerate(words)
        ]
    path = manifest.with_stem(f"timed-{manifest.stem}")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def batches_of(model, manifest: Path, folder: Path, *, keep: bool = False):
    from training.finetune import aligned, data

    (source,) = data.read_sources([str(manifest)], keep=keep)
    tag = TagSpelling("<en-US>", ("<en-US>",))
    data.write_manifest(source, lambda _: tag, folder / "manifest.jsonl")
    config = data.loader_config(
        [(folder / "manifest.jsonl", 1.0)],
        dict(model.cfg.model_defaults.prompt_dictionary),
        batch_s=60,
        seed=0,
        workers=0,
        telephone=0.0,
        noise=None,
    )
    return iter(aligned.loader(model, config, lambda _: [0]))


def test_where_words_have_times_they_are_learnt_along_them(timed, tmp_path):
    done = finetune(
        *("--train", str(timed), "--test", f"same={timed}", "--steps", "6", "--batch-s", "20"),
        *("--workers", "0", "--output", str(tmp_path / "out")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "along the times of words" in done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (after,) = results["tests"]["same"]["after"][:1]
    assert after["error_rate"]["value"] < 60


def test_each_clip_of_a_batch_has_words_to_its_own_end(timed, tmp_path, monkeypatch):
    from training.finetune import aligned

    model = open_model("demo", tmp_path / "tokenizer")
    made = []
    make = aligned.TargetMaker.make

    def spy(self, words, frames, *, tags):
        made.append((words[-1].end, frames))
        return make(self, words, frames, tags=tags)

    monkeypatch.setattr(aligned.TargetMaker, "make", spy)
    batches = batches_of(model, timed, tmp_path)
    while len(made) < 12:
        batch = next(batches)
        ends = [end for end, _ in made[-len(batch.signal_len) :]]
        spoken = batch.signal_len / RATE - aligned.TAIL_S
        assert ends == pytest.approx(spoken.tolist(), abs=0.005)  # at whatever speed
    assert len({frames for _, frames in made}) > 4


def test_the_rows_of_new_pieces_begin_alone(timed_hindi, tmp_path):
    from training.finetune import aligned, checkpoint, recipe

    base = open_model("demo", tmp_path / "base")
    known = checkpoint.processor_of(base).get_piece_size()
    model = checkpoint.with_more_pieces(base, ["मुझे एक मेज़ चाहिए।"], 60, tmp_path / "more")
    new = checkpoint.processor_of(model).get_piece_size() - known
    recipe.frozen_but(model, "decoder")
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    module = aligned.NewRowsTraining(model, None, rate=0.03, warmup_steps=1, steps=3)
    batch = next(batches_of(model, timed_hindi, tmp_path))
    with aligned.only_new_rows(model, new):
        optimiser = module.configure_optimizers()["optimizer"]
        for _ in range(3):
            optimiser.zero_grad()
            module.training_step(batch, 0)["loss"].backward()
            optimiser.step()
    module.training_step(batch, 0)["loss"].backward()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learning
    rows = "decoder.prediction.embed.weight", "joint.joint_net.1.weight", "joint.joint_net.1.bias"
    for name, value in model.state_dict().items():
        if name in rows:
            assert torch.equal(value[:known], before[name][:known]), name
            assert not torch.equal(value[known:], before[name][known:]), name
        else:
            assert torch.equal(value, before[name]), name
    assert model.joint.joint_net[-1].weight.grad[:known].any()  # all rows learn again


def test_what_is_kept_is_held_to_the_bases_answers(timed, tmp_path, monkeypatch):
    from training.finetune import aligned, checkpoint

    monkeypatch.setattr(aligned, "NOISE", 0.0)
    monkeypatch.setattr(aligned, "DEAF", 0.0)
    model = open_model("demo", tmp_path / "tokenizer").eval()
    base = checkpoint.as_it_is(model)
    schedule = {"rate": 1e-3, "warmup_steps": 1, "steps": 2}
    by_text = aligned.AlignedTraining(model, None, **schedule)
    by_both = aligned.AlignedTraining(model, base, **schedule)
    kept = next(batches_of(model, timed, tmp_path, keep=True))
    new = next(batches_of(model, timed, tmp_path))

    @torch.no_grad()
    def more(batch) -> float:
        """What the base's answers add to the texts' loss."""
        return (
            by_both.training_step(batch, 0)["loss"] - by_text.training_step(batch, 0)["loss"]
        ).item()

    assert more(kept) == pytest.approx(0.0, abs=1e-5)  # it still answers as the base does
    with torch.no_grad():
        model.joint.joint_net[-1].bias.add_(
            torch.linspace(-2, 2, len(model.joint.joint_net[-1].bias))
        )
    assert more(kept) > 0.01
    assert more(new) == 0.0
    assert not any("_base" in name for name in by_both.state_dict())


def test_new_rows_begin_once_in_a_run_that_goes_on(timed_hindi, tmp_path):
    options = ["--train", str(timed_hindi), "--add-pieces", "60", "--new-rows-steps", "2"]
    options += ["--batch-s", "10", "--workers", "0", "--output", str(tmp_path / "out")]
    first = finetune(*options, "--steps", "1")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "new pieces: step 2 of 2" in first.stdout
    more = finetune(*options, "--steps", "2", "--resume")
    assert more.returncode == 0, more.stdout + more.stderr
    assert "new pieces" not in more.stdout
    assert "step 2 of 2" in more.stdout


@pytest.mark.parametrize(("normalize", "mean"), [("NA", MEL_MEAN), ("per_feature", 0.0)])
def test_what_spec_augment_masks_takes_the_mean(normalize, mean, tmp_path):
    from training.finetune import recipe

    model = open_model("demo", tmp_path)
    model.cfg.preprocessor.normalize = normalize
    recipe.augment(model)
    torch.manual_seed(0)
    mel = model.spec_augmentation(
        input_spec=torch.full((4, model.cfg.preprocessor.features, 300), 5.0),
        length=torch.full((4,), 300),
    )
    assert mel.unique().tolist() == pytest.approx([mean, 5.0])


def test_engine_and_nemo_agree_on_what_was_learnt(tuned, tmp_path):
    theirs = open_model(str(tuned / "model.nemo"), tmp_path)
    theirs.eval()
    theirs.preprocessor.featurizer.dither = 0.0
    checkpoint = load_checkpoint(tuned / "model.nemo")
    ours = Network(checkpoint.weights, checkpoint.config)
    samples = read_samples(bundled_calls()[0].audio)[: 12 * RATE]
    for lookahead in (0, 3):
        frames, emissions = stream(ours, samples, lookahead, 101)
        whole = nemo_model.whole(theirs, samples, lookahead, "auto")
        expected = [token for token in whole.tokens if token[1] < len(frames)]
        assert [(one.token_id, one.frame) for one in emissions] == expected
        assert expected


def test_a_run_that_was_cut_off_goes_on(tuned, speech):
    old, hindi = speech
    options = ["--train", str(hindi), "--train", f"{old}=2", "--add-pieces", "60"]
    options += ["--batch-s", "20", "--workers", "0", "--output", str(tuned)]
    refused = finetune(*options, "--steps", "8")
    assert refused.returncode == 2
    assert "add --resume" in refused.stderr
    done = finetune(*options, "--steps", "8", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 8 of 8" in done.stdout
    state = torch.load(tuned / "run" / "last.ckpt", map_location="cpu", weights_only=False)
    assert state["global_step"] == 8


def test_a_frozen_encoder_stays_what_it_was(speech, tmp_path):
    old, _ = speech
    done = finetune(
        *("--train", str(old), "--trainable", "decoder", "--steps", "2", "--batch-s", "10"),
        *("--workers", "0", "--output", str(tmp_path / "out")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    changed = changed_weights(tmp_path / "out/model.nemo")
    assert changed
    assert not any(name.startswith("encoder.") for name in changed)


def test_a_frozen_subsampling_stays_what_it_was(timed, tmp_path):
    options = ["--train", str(timed), "--trainable", "blocks", "--batch-s", "10"]
    done = finetune(*options, "--steps", "2", "--workers", "0", "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    changed = changed_weights(tmp_path / "out/model.nemo")
    assert any(name.startswith("encoder.layers.0.") for name in changed)
    assert not any(name.startswith("encoder.subsampling.") for name in changed)


def changed_weights(tuned: Path) -> set[str]:
    before, after = load_checkpoint("demo").weights, load_checkpoint(tuned).weights
    return {name for name in before if not torch.equal(before[name].float(), after[name].float())}


def test_the_bases_encoder_is_mixed_in(tmp_path):
    from training.finetune import checkpoint, recipe

    model = open_model("demo", tmp_path)
    before = checkpoint.as_it_is(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    recipe.mix_in(model, before, 0.25)
    learnt = dict(model.named_parameters())
    for name, old in before.named_parameters():
        moved = 0.75 if name.startswith("encoder.") else 1.0
        torch.testing.assert_close(learnt[name], old + moved)


def test_another_share_of_the_base_needs_no_other_run(timed, tmp_path):
    options = ["--train", str(timed), "--keep", str(timed), "--steps", "2", "--batch-s", "10"]
    options += ["--workers", "0", "--output", str(tmp_path / "out")]
    assert finetune(*options).returncode == 0
    changed = changed_weights(tmp_path / "out/model.nemo")
    assert any(name.startswith("encoder.") for name in changed)
    back = finetune(*options, "--resume", "--base-share", "1")
    assert back.returncode == 0, back.stdout + back.stderr
    assert "step 1 of 2" not in back.stdout
    changed = changed_weights(tmp_path / "out/model.nemo")
    assert changed
    assert not any(name.startswith("encoder.") for name in changed)


def test_letters_that_the_tokenizer_lacks_are_refused_by_name(speech, tmp_path):
    done = finetune("--train", str(speech[1]), "--output", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "no piece for" in done.stderr
    assert "--add-pieces" in done.stderr
    assert "Traceback" not in done.stderr


def test_nemos_own_loss_is_the_same(tmp_path):
    from training.finetune.recipe import TorchTransducerLoss

    model = open_model("demo", tmp_path)
    torch.manual_seed(0)
    scores = torch.randn(2, 7, 4, 12)
    labels, frames, counts = (
        torch.tensor([[1, 2, 3], [4, 5, 0]]),
        torch.tensor([7, 5]),
        torch.tensor([3, 2]),
    )
    model.loss._loss.blank = 11
    theirs = model.loss._loss(
        acts=scores.log_softmax(-1), labels=labels, act_lens=frames, label_lens=counts
    )
    ours = TorchTransducerLoss()(scores, labels, frames, counts)
    torch.testing.assert_close(ours, theirs.flatten(), atol=1e-3, rtol=1e-4)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"is no \.nemo file"):
        open_model("nvidia/nemotron", tmp_path)

"""The numbers of a network: from a Hugging Face config.json or from NeMo's model_config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nemotron_voice.errors import CheckpointFormatError, ConfigurationError
from nemotron_voice.languages import AUTO_PROMPT_INDEX, BY_CODE, LOCALES, add_described

# Look-aheads of the five latency modes, in encoder frames of 80 ms [model card].
LOOKAHEADS: Final = (0, 1, 3, 6, 13)
SUBSAMPLING_FACTOR: Final = 8


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a cache-aware FastConformer transducer."""

    mel_bins: int
    subsampling_channels: int
    d_model: int
    layers: int
    heads: int
    feed_forward: int  # inner size of the feed-forward modules
    conv_kernel: int  # taps of the causal depthwise convolution
    linear_bias: bool  # feed-forward and attention projections have biases
    conv_bias: bool  # the three convolutions of the convolution module have biases
    scale_input: bool  # multiply what enters the blocks by sqrt(d_model)
    left_context: int  # encoder frames of the past that attention sees
    vocabulary: int  # outputs of the joint: pieces and the blank
    blank: int  # id of the blank, which also starts a stream
    prediction_size: int
    prediction_layers: int
    joint_size: int
    max_symbols: int  # tokens that one encoder frame can emit
    prompts: int  # slots of the language prompt; 0: the model has none
    prompt_hidden: int
    languages: tuple[str, ...]  # locales that the model was trained for

    def __post_init__(self) -> None:
        """Refuse sizes that fit no network."""
        for name in (
            "mel_bins", "subsampling_channels", "d_model", "layers", "feed_forward", "conv_kernel",
            "prediction_size", "prediction_layers", "joint_size", "max_symbols",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise CheckpointFormatError(f"{name} of the model is {getattr(self, name)}: none")
        if self.d_model % 2:
            raise CheckpointFormatError(
                f"the model has {self.d_model} channels, and its encoding of positions takes an "
                f"even number"
            )
        if 0 < self.prompts <= AUTO_PROMPT_INDEX:
            raise CheckpointFormatError(
                f"the model has {self.prompts} slots of the language prompt, and `auto` is the "
                f"{AUTO_PROMPT_INDEX + 1}th"
            )
        if self.heads < 1 or self.d_model % self.heads:
            raise CheckpointFormatError(
                f"the model has {self.d_model} channels and {self.heads} attention heads, and the "
                f"heads must divide the channels"
            )
        if not 0 <= self.blank < self.vocabulary:
            raise CheckpointFormatError(
                f"blank id {self.blank} is not one of the joint's {self.vocabulary} outputs"
            )
        if self.left_context < 0 or not self.lookaheads:
            raise CheckpointFormatError(
                f"a left context of {self.left_context} frames fits none of the look-aheads "
                f"{LOOKAHEADS}: R + 1 must divide it"
            )

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.d_model // self.heads

    @property
    def num_prompts(self) -> int:
        """Slots of the language prompt; 0 for a model of one language."""
        return self.prompts

    @property
    def lookaheads(self) -> tuple[int, ...]:
        """Look-aheads whose chunks tile the left context, as `chunked_limited` attention demands.

        Chunked attention sees whole chunks of the past, so R + 1 must divide the left context:
        56 takes all five, the English model's 70 all but R = 3.
        """
        return tuple(right for right in LOOKAHEADS if self.left_context % (right + 1) == 0)

    @property
    def map_sizes(self) -> tuple[int, int, int]:
        """Frequency bins after each of the three subsampling stages: 65, 33, 17 for 128 mel."""
        first = self.mel_bins // 2 + 1
        second = first // 2 + 1
        return first, second, second // 2 + 1

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> ModelConfig:
        """Read a config.json of `Nemotron3_5AsrConfig` or `NemotronAsrStreamingConfig`.

        Keys that the file leaves out have the defaults of Transformers 5.23.

        Raises:
            CheckpointFormatError: another kind of model, or a setting that isn't implemented.
        """
        top = _Section(config, "config.json")
        kind = top.choice("model_type", ("nemotron3_5_asr", "nemotron_asr_streaming"), None)
        multilingual = kind == "nemotron3_5_asr"
        encoder = top.section("encoder_config")
        encoder.choice("subsampling_factor", (SUBSAMPLING_FACTOR,), SUBSAMPLING_FACTOR)
        encoder.choice("subsampling_conv_kernel_size", (3,), 3)
        encoder.choice("subsampling_conv_stride", (2,), 2)
        encoder.choice("hidden_act", ("silu",), "silu")
        top.choice("hidden_act", ("relu",), "relu")
        pieces = 13_087 if multilingual else 1_024
        prediction = top.integer("decoder_hidden_size", 640)
        prompts = top.integer("num_prompts", 128) if multilingual else 0
        return cls(
            mel_bins=encoder.integer("num_mel_bins", 80),
            subsampling_channels=encoder.integer("subsampling_conv_channels", 256),
            d_model=encoder.integer("hidden_size", 1024),
            layers=encoder.integer("num_hidden_layers", 24),
            heads=encoder.integer("num_attention_heads", 8),
            feed_forward=encoder.integer("intermediate_size", 4096),
            conv_kernel=encoder.integer("conv_kernel_size", 9),
            linear_bias=encoder.flag("attention_bias", default=True),
            conv_bias=encoder.flag("convolution_bias", default=True),
            scale_input=encoder.flag("scale_input", default=True),
            left_context=encoder.integer("sliding_window", 71) - 1,
            vocabulary=top.integer("vocab_size", pieces + 1),
            blank=top.integer("blank_token_id", pieces),
            prediction_size=prediction,
            prediction_layers=top.integer("num_decoder_layers", 2),
            joint_size=prediction,  # Transformers knows no other
            max_symbols=top.integer("max_symbols_per_step", 10),
            prompts=prompts,
            prompt_hidden=top.integer("prompt_intermediate_size", 2048) if multilingual else 0,
            languages=_languages(_listed(config), None, prompts),
        )

    @classmethod
    def from_nemo(cls, config: Mapping[str, Any], pieces: int) -> ModelConfig:
        """Read a model_config.yaml of `EncDecRNNTBPEModelWithPrompt` or `EncDecRNNTBPEModel`.

        Args:
            config: the parsed file.
            pieces: size of the tokenizer; NeMo puts the blank right after.

        Raises:
            CheckpointFormatError: another kind of model, or a setting that isn't implemented.
        """
        top = _Section(config, "model_config.yaml")
        encoder, decoder, joint = (top.section(key) for key in ("encoder", "decoder", "joint"))
        prediction, jointnet = decoder.section("prednet"), joint.section("jointnet")
        _check_nemo(top.section("preprocessor"), encoder, decoder, jointnet)
        d_model = encoder.integer("d_model", None)
        defaults = top.section("model_defaults")
        with_prompt = defaults.flag("initialize_prompt_feature", default=False)
        prompts = defaults.integer("num_prompts", 128) if with_prompt else 0
        bias = encoder.flag("use_bias", default=True)
        greedy = top.section("decoding", optional=True).section("greedy", optional=True)
        return cls(
            mel_bins=encoder.integer("feat_in", None),
            subsampling_channels=encoder.integer("subsampling_conv_channels", d_model),
            d_model=d_model,
            layers=encoder.integer("n_layers", None),
            heads=encoder.integer("n_heads", 4),
            feed_forward=d_model * encoder.integer("ff_expansion_factor", 4),
            conv_kernel=encoder.integer("conv_kernel_size", 31),
            linear_bias=bias,
            conv_bias=bias,
            scale_input=encoder.flag("xscaling", default=True),
            left_context=_left_context(encoder),
            vocabulary=pieces + 1,
            blank=pieces,
            prediction_size=prediction.integer("pred_hidden", None),
            prediction_layers=prediction.integer("pred_rnn_layers", 1),
            joint_size=jointnet.integer("joint_hidden", None),
            max_symbols=greedy.integer("max_symbols", 10),
            prompts=prompts,
            prompt_hidden=2 * d_model if prompts else 0,
            languages=_languages(_listed(config), defaults.get("prompt_dictionary"), prompts),
        )


class _Section:
    """A mapping of a configuration file, whose values are checked as they are read."""

    def __init__(self, values: Any, name: str) -> None:
        if not isinstance(values, Mapping):
            raise CheckpointFormatError(
                f"{name} is {type(values).__name__} where a mapping is due; is it a checkpoint of "
                f"Nemotron streaming ASR?"
            )
        self._values = values
        self._name = name

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def section(self, key: str, *, optional: bool = False) -> _Section:
        value = self._values.get(key)
        if value is None and optional:
            value = {}
        return _Section(value, f"{self._name}: {key}")

    def integer(self, key: str, default: int | None) -> int:
        value = self._values.get(key, default)
        if value is None and default is not None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise CheckpointFormatError(f"{self._name}: {key} is {value!r}; a size is due")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise CheckpointFormatError(f"{self._name}: {key} is {value!r}; true or false is due")
        return value

    def choice(self, key: str, implemented: tuple[Any, ...], default: Any) -> Any:
        value = self._values.get(key, default)
        if value not in implemented:
            allowed = " or ".join(repr(item) for item in implemented)
            raise CheckpointFormatError(
                f"{self._name}: {key} is {value!r}, and only {allowed} is implemented"
            )
        return value


def _check_nemo(
    preprocessor: _Section, encoder: _Section, decoder: _Section, jointnet: _Section
) -> None:
    """Refuse the many FastConformers that aren't this cache-aware one."""
    preprocessor.choice("sample_rate", (16_000,), 16_000)
    preprocessor.choice("window_size", (0.025,), 0.02)
    preprocessor.choice("window_stride", (0.01,), 0.01)
    preprocessor.choice("window", ("hann",), "hann")
    preprocessor.choice("n_fft", (512,), None)
    preprocessor.choice("normalize", ("NA", None, False), "per_feature")
    preprocessor.choice("frame_splicing", (1,), 1)
    preprocessor.choice("preemph", (0.97,), 0.97)
    preprocessor.choice("log_zero_guard_value", (2**-24,), 2**-24)
    preprocessor.choice("mag_power", (2, 2.0), 2.0)
    encoder.choice("subsampling", ("dw_striding",), "striding")
    encoder.choice("subsampling_factor", (SUBSAMPLING_FACTOR,), 4)
    encoder.choice("causal_downsampling", (True,), default=False)
    encoder.choice("self_attention_model", ("rel_pos",), "rel_pos")
    encoder.choice("att_context_style", ("chunked_limited",), "regular")
    encoder.choice("untie_biases", (True,), default=True)
    encoder.choice("conv_norm_type", ("layer_norm",), "batch_norm")
    encoder.choice("conv_context_size", ("causal",), None)
    decoder.choice("blank_as_pad", (True,), default=True)
    decoder.choice("normalization_mode", (None,), None)
    jointnet.choice("activation", ("relu",), None)


def _left_context(encoder: _Section) -> int:
    """Left context of NeMo's `att_context_size`: [left, right] or several of them, of one left."""
    sizes = encoder.get("att_context_size")
    pairs = [sizes] if isinstance(sizes, list) and sizes and isinstance(sizes[0], int) else sizes
    try:
        (left,) = {int(pair[0]) for pair in pairs}
    except (TypeError, ValueError, IndexError, KeyError):
        raise CheckpointFormatError(
            f"model_config.yaml: encoder.att_context_size is {sizes!r}; pairs [left, right] of one "
            f"left context are due"
        ) from None
    return left


def _listed(config: Mapping[str, Any]) -> Any:
    """The file's own list of languages, once the locales are known that it has beside the 40."""
    for entry in config.get("locales") or ():
        try:
            add_described(entry)
        except ConfigurationError as error:
            raise CheckpointFormatError(f"the checkpoint's locales: {error}") from error
    return config.get("languages")


def _languages(listed: Any, prompt_dictionary: Any, prompts: int) -> tuple[str, ...]:
    """Locales of a model: as its file lists them, or by its prompt slots.

    Args:
        listed: the file's own "languages" key, which this project's checkpoints have.
        prompt_dictionary: NeMo's name -> slot; a locale at another slot than the released model's
            isn't ours to ask for.
        prompts: number of slots; 0 means the English model.
    """
    if listed is not None:
        codes = {locale.code: locale.prompt_index for locale in BY_CODE.values()}
        if not isinstance(listed, list) or not listed or any(code not in codes for code in listed):
            raise CheckpointFormatError(
                f"languages of the checkpoint are {listed!r}; a list of locales such as 'es-ES' is "
                f"due (`nemotron-voice languages` shows all {len(codes)})"
            )
        return tuple(listed)
    if not prompts:
        return ("en-US",)
    codes = {locale.code: locale.prompt_index for locale in LOCALES}
    if isinstance(prompt_dictionary, Mapping) and prompt_dictionary:
        codes = {code: slot for code, slot in codes.items() if prompt_dictionary.get(code) == slot}
    return tuple(code for code, slot in codes.items() if slot < prompts)

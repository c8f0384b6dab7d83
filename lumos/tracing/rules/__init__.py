"""The rule table: what each kind of call does to the units that its operands carry.

One row per kind of call; a new kind is a new row. Names are plain (:func:`lumos.tracing.calls.plain_name`), so that one
row serves a function, its method, its operator and its in-place form. A call without a row freezes the units that enter
it.
"""

from __future__ import annotations

from lumos.tracing.rules import attention as a
from lumos.tracing.rules import contraction as c
from lumos.tracing.rules import mixing as m
from lumos.tracing.rules import movement as v
from lumos.tracing.rules import products as p
from lumos.tracing.rules import recurrent as r
from lumos.tracing.trace import Rule

_ROWS: list[tuple[Rule, str]] = [
    (
        v.move,
        """view reshape flatten unflatten permute transpose swapaxes swapdims t get_T get_mT get_H get_data movedim
        moveaxis squeeze unsqueeze expand expand_as view_as reshape_as contiguous clone detach cat concat concatenate
        stack hstack vstack chunk split split_with_sizes tensor_split unbind getitem index_select narrow select repeat
        tile repeat_interleave roll flip fliplr flipud take_along_dim gather diagonal broadcast_to ravel atleast_2d
        broadcast_tensors unsafe_chunk unsafe_split adjoint ensure_tensor fft_fftshift fft_ifftshift""",
    ),
    (v.move_as_float, "pad pixel_shuffle pixel_unshuffle unfold channel_shuffle native_channel_shuffle"),
    (v.as_real, "view_as_real"),
    (v.as_complex, "view_as_complex"),
    (v.setitem, "setitem"),
    (v.scatter, "scatter_add index_add scatter scatter_reduce index_copy index_reduce"),
    (
        v.same,
        """relu relu6 leaky_relu rrelu elu selu celu gelu silu mish sigmoid hardsigmoid hardswish hardtanh logsigmoid
        softplus softsign tanh tanhshrink softshrink hardshrink threshold abs absolute neg negative sign sgn exp exp2
        expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan asin acos atan sinh cosh asinh acosh atanh
        erf erfc floor ceil round trunc frac nan_to_num isnan isfinite isinf logical_not bitwise_not invert to float
        double half bfloat16 long int bool type_as cpu cuda requires_grad zeros_like ones_like full_like empty_like
        rand_like randn_like bernoulli dropout alpha_dropout feature_alpha_dropout feature_dropout dropout1d dropout2d
        dropout3d clip clamp_min clamp_max alias positive conj real imag fill zero normal uniform exponential angle
        get_real get_imag get_grad type resolve_conj""",
    ),
    (
        v.elementwise,
        """add sub subtract mul multiply div divide true_divide truediv floordiv floor_divide remainder fmod mod pow
        float_power atan2 hypot where maximum minimum fmax fmin lerp addcmul addcdiv clamp masked_fill eq ne lt le gt
        ge greater less logical_and logical_or logical_xor and or xor copy logaddexp rsub copysign xlogy nextafter
        heaviside complex polar""",
    ),
    (
        v.constant,
        """zeros ones full empty rand randn arange linspace new_zeros new_ones new_full new_empty eye tensor
        scalar_tensor new_tensor as_tensor from_numpy randint one_hot""",
    ),
    (
        m.reduce,
        """sum mean prod var std norm logsumexp softmax log_softmax gumbel_softmax softmin normalize cumsum cumprod amax
        amin argmax argmin any all sort argsort topk median nanmean nansum vector_norm linalg_vector_norm std_mean
        var_mean cosine_similarity""",
    ),
    (m.extremum, "max min"),
    (
        m.pool,
        """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d lp_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
        adaptive_max_pool3d interpolate upsample upsample_nearest upsample_bilinear grid_sample
        max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices""",
    ),
    (m.batch_norm, "batch_norm instance_norm"),
    (m.group_norm, "group_norm"),
    (m.layer_norm, "layer_norm rms_norm"),
    (m.prelu, "prelu"),
    (m.glu, "glu"),
    (m.fold, "fold"),
    (m.derivative, "grad backward"),
    (
        m.fourier,
        """fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn
        fft_irfftn""",
    ),
    (c.linear, "linear"),
    (c.convolution, "conv1d conv2d conv3d"),
    (c.transposed_convolution, "conv_transpose1d conv_transpose2d conv_transpose3d"),
    (p.matmul, "matmul mm addmm bmm baddbmm"),
    (p.einsum, "einsum"),
    (p.tensordot, "tensordot"),
    (p.outer, "outer ger"),
    (p.bilinear, "bilinear"),
    (a.attention, "scaled_dot_product_attention"),
    (c.embedding, "embedding embedding_bag"),
    (c.weight_norm, "_weight_norm"),
    (r.layers, "lstm gru rnn_tanh rnn_relu"),
    (r.cell, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    (r.pack, "_pack_padded_sequence"),
    (r.unpack, "_pad_packed_sequence"),
]

RULES: dict[str, Rule] = {name: rule for rule, names in _ROWS for name in names.split()}
"""The rule of each call that can be followed, by plain name."""

_DIFFERS = frozenset(
    """rand_like randn_like bernoulli normal uniform exponential dropout alpha_dropout feature_alpha_dropout
    feature_dropout dropout1d dropout2d dropout3d empty_like""".split()  # noqa: SIM905
)
ELEMENTWISE = frozenset(n for rule, names in _ROWS if rule in (v.same, v.elementwise) for n in names.split()) - _DIFFERS
"""Calls that treat every value alike."""

"""Names that people carry over from PyTorch, NumPy, TensorFlow and JAX, and what to write instead.

Names that mean the same as one of ours work; for others the error says what to write, or that a name of the interface
is still to come. The face, its packages and ``Tensor`` ask here for what they do not have. What follows ``gc.`` in an
answer is there; a test resolves each.
"""

from __future__ import annotations

import sys

from graphcore.base.errors import GraphcoreError

__all__ = ["DEVICE", "SAME", "SAME_METHODS", "SignpostError", "missing"]


class SignpostError(GraphcoreError, AttributeError):
    """There is no such name; the message says what to write, where that is known."""


def _pairs(text: str) -> dict[str, str]:
    """``"a=b c=d"`` as a dictionary."""
    return dict(word.split("=") for word in text.split())


# Names that mean the same, with the same arguments.
SAME = _pairs("""
    absolute=abs arccos=acos arccosh=acosh arcsin=asin arcsinh=asinh arctan=atan arctan2=atan2 arctanh=atanh
    as_tensor=asarray bitwise_not=bitwise_invert invert=bitwise_invert left_shift=bitwise_left_shift
    right_shift=bitwise_right_shift cast=astype cat=concat clamp=clip div=divide true_divide=divide mul=multiply
    neg=negative sub=subtract power=pow mod=remainder eq=equal ne=not_equal lt=less le=less_equal gt=greater
    ge=greater_equal mm=matmul bmm=matmul ravel=flatten reduce_all=all reduce_any=any reduce_logsumexp=logsumexp
    reduce_max=max reduce_mean=mean reduce_min=min reduce_prod=prod reduce_sum=sum inference_mode=no_grad
    rand=random.rand randn=random.randn randperm=random.permutation manual_seed=random.seed float=float32 half=float16
    double=float64 long=int64 short=int16 relu6=nn.functional.relu6 gelu=nn.functional.gelu elu=nn.functional.elu
    selu=nn.functional.selu celu=nn.functional.celu get_default_session=default_session
""")

# Methods of tensors under other names: of functions that take the tensor first.
SAME_METHODS = {name: ours for name, ours in SAME.items() if "." not in ours}

_FROM_ARRAY = (
    "gc.constant(value) holds a fixed value, gc.Variable(value) one that trains, gc.placeholder(dtype, shape) one that "
    "is fed; sess.run takes arrays as they are"
)
DEVICE = "where a program runs is for its session: gc.Session(device='opencl:0')"
_GRADIENT = "gc.gradients(y, xs) gives symbolic gradients as a list; loss.backward() leaves them in .grad"
_ASSIGN = "w.assign(value), w.assign_add(value) and w.assign_sub(value) of a gc.Variable give updates to be run"
_JOIN = "gc.concat(tensors, axis) joins along an axis, gc.stack(tensors, axis) along a new one"
_GRAD = "t.retain_grad() before loss.backward() asks for it; gc.gradients(y, [t]) gives gradients as a list"
_RUN = "values exist in a run only: sess.run(t) gives an array; sess.get_value(w) that of a variable"

# What to write for other names: of the package and of its parts.
_ADVICE: dict[str, dict[str, str]] = {
    "gc": {
        **dict.fromkeys(("tensor", "from_numpy", "convert_to_tensor", "Constant"), _FROM_ARRAY),
        "Parameter": "gc.Variable(value) trains unless trainable=False is given, and so does gc.nn.Parameter(value)",
        "get_variable": "gc.Variable(value, name='w') makes one; gc.name_scope prefixes names",
        "variable_scope": "gc.name_scope('encoder') prefixes names, those of checkpoints too",
        **dict.fromkeys(("grad", "autograd", "value_and_grad", "GradientTape"), _GRADIENT),
        **dict.fromkeys(
            ("jit", "compile"),
            "gc.function(inputs, outputs) and sess.make_callable(outputs, inputs) compile at first use",
        ),
        **dict.fromkeys(("assign", "assign_add", "assign_sub"), _ASSIGN),
        **dict.fromkeys(
            ("global_variables_initializer", "initialize_all_variables", "local_variables_initializer"),
            "variables take their initial values when a gc.Session uses them first",
        ),
        **dict.fromkeys(
            ("InteractiveSession", "ConfigProto"), "gc.Session(device=..., memory_limit=...) takes options"
        ),
        **dict.fromkeys(("cuda", "to_device", "device_put", "set_default_device"), DEVICE),
        **dict.fromkeys(
            ("set_default_dtype", "get_default_dtype", "set_printoptions"),
            "the default float is float32; functions that make tensors take dtype=",
        ),
        **dict.fromkeys(("set_seed", "set_random_seed"), "gc.random.seed(n), or gc.Session(seed=n)"),
        "randint": "gc.random.randint(low, high, shape)",
        "normal": "gc.random.normal(shape, mean, std)",
        **dict.fromkeys(("vstack", "hstack", "dstack", "column_stack", "row_stack"), _JOIN),
        "is_tensor": "isinstance(x, gc.Tensor)",
        "numel": "t.size is the number of elements",
        "t": "t.T reverses the axes of a tensor, t.mT swaps the last two",
        "view": "gc.reshape(t, shape), or t.view(shape)",
        "average": "gc.mean(t, axis); with weights gc.sum(t * w) / gc.sum(w)",
        "copy": "tensors are immutable, so use t itself; gc.stop_gradient(t) cuts gradients",
        "clone": "tensors are immutable, so use t itself; gc.stop_gradient(t) cuts gradients",
        "int": "gc.int32 or gc.int64",
        "bool": "gc.bool_",
        "inner": "gc.vecdot(a, b) along the last axis, gc.tensordot(a, b, axes)",
        "Module": "gc.nn.Module",
        "Adam": "gc.optim.Adam",
        "SGD": "gc.optim.SGD",
        "Optimizer": "gc.optim.Optimizer",
        "DataLoader": "gc.data.DataLoader",
        "layers": "gc.nn has the modules, gc.nn.functional their functions",
        "keras": "gc.nn has the modules, gc.train.fit(model, data, ...) the loop",
        "losses": "gc.nn.functional.cross_entropy and other losses; gc.nn has them as modules",
        "cross_entropy": "gc.nn.functional.cross_entropy(logits, labels)",
        "mse_loss": "gc.nn.functional.mse_loss(prediction, target)",
        "dropout": "gc.nn.functional.dropout(x, p), or gc.nn.Dropout(p)",
        "layer_norm": "gc.nn.functional.layer_norm(x, shape, weight, bias)",
        "conv2d": "gc.nn.functional.conv2d(x, w), or gc.nn.Conv2d(...)",
        "linear": "gc.nn.functional.linear(x, w, b), or gc.nn.Linear(...)",
    },
    "Tensor": {
        "data": "t.detach() is the value without gradients; " + _RUN,
        **dict.fromkeys(("cuda", "cpu", "to_device", "pin_memory", "is_cuda"), DEVICE),
        "eval": _RUN,
        **dict.fromkeys(("assign", "assign_add", "assign_sub", "copy_", "load"), _ASSIGN),
        "requires_grad_": "gc.Variable(value, trainable=True) is what trains; w.requires_grad reads and sets it",
        **dict.fromkeys(("is_leaf", "grad_fn", "register_hook"), _GRADIENT),
        "get_shape": "t.shape",
        "set_shape": "gc.placeholder(dtype, shape) fixes a shape; gc.reshape(t, shape) changes it",
        "op": "t.node.op",
        "graph": "there is no global graph; gc.Graph((t,)) is what t is computed from",
        "t": "t.T reverses the axes, t.mT swaps the last two",
        "H": "t.mT",
        "itemsize": "t.dtype.itemsize",
        "nbytes": "t.size * t.dtype.itemsize",
        "strides": "a symbolic tensor has no memory; where its value lies is for the compiler",
        "stride": "a symbolic tensor has no memory; where its value lies is for the compiler",
        "grad": _GRAD,
        "requires_grad": "gc.Variable(value, trainable=True) is what trains",
        "type_as": "t.astype(other.dtype)",
        **dict.fromkeys(("view_as", "reshape_as"), "t.reshape(other.shape)"),
        "expand_as": "t.broadcast_to(other.shape)",
        "fill": "gc.full_like(t, value)",
        "where": "gc.where(condition, a, b)",
        "chunk": "t.split(n, axis)",
        "index_fill": "t.at[index].set(value)",
        "to_numpy": _RUN,
    },
    "nn": {
        "BCELoss": "gc.nn.functional.binary_cross_entropy(p, target), or better gc.nn.BCEWithLogitsLoss() on logits",
        "sparse_softmax_cross_entropy_with_logits": "gc.nn.functional.cross_entropy(logits, labels)",
        "softmax_cross_entropy_with_logits": "gc.nn.functional.cross_entropy(logits, probabilities)",
        "sigmoid_cross_entropy_with_logits": "gc.nn.functional.binary_cross_entropy_with_logits(logits, target)",
    },
    "optim": {
        "lr_scheduler": "lr= of an optimizer takes a function of the step count that gives a scalar tensor",
    },
    "train": {
        "AdamOptimizer": "gc.optim.Adam(lr)",
        "GradientDescentOptimizer": "gc.optim.SGD(lr)",
        "MomentumOptimizer": "gc.optim.SGD(lr, momentum=0.9)",
        "RMSPropOptimizer": "gc.optim.RMSprop(lr)",
        "Saver": "sess.save(path) and sess.restore(path) of a gc.Session",
    },
    "random": {
        "manual_seed": "gc.random.seed(n)",
        "set_seed": "gc.random.seed(n)",
        "standard_normal": "gc.random.normal(shape)",
        "random": "gc.random.uniform(shape)",
        "PRNGKey": "gc.random.seed(n), or gc.Session(seed=n): draws are new in every run",
    },
}

# Names of the interface that are not there yet.
_PLANNED = {
    "gc": """
        Function array_api array_equal bincount block_diag bucketize cdist check cond corrcoef cov cross cummax cummin
        cumprod cumsum cumulative_prod cumulative_sum diag diag_embed diff e empty empty_like entr fft fmod frac
        frexp from_dlpack functional_call gammainc gammaincc gcd heaviside histogram i0 i1 inf index_select interp
        isin kron kthvalue lcm ldexp lerp linalg load logcumsumexp logit map_fn masked_fill masked_select median mode
        models multigammaln nan nanmax nanmean nanmedian nanmin nansum ndtr ndtri newaxis nextafter nonzero numpy_op
        onnx opencl_op pi precision print ptp quantile rot90 save scan scatter scatter_reduce searchsorted select sinc
        sort argsort switch to_networkx topk tril_indices triu_indices unique unique_all unique_counts unique_inverse
        unique_values vmap while_loop xlog1py xlogy zeta betainc addcmul aminmax allclose broadcast_shapes can_cast
        conj real imag finfo iinfo isdtype erfcinv
    """,
    "random": "beta choice dirichlet gamma key laplace multinomial poisson shuffle",
    "optim": """
        ASGD Adadelta Adafactor Adagrad Adamax LAMB LBFGS Lion Muon NAdam RAdam Rprop SWA accumulate ema loss_scale
        multi schedules update_bn
    """,
    "data": """
        ConcatDataset DistributedSampler ImageFolder IterableDataset Subset Tokenizer WeightedRandomSampler
        random_split read_cifar read_csv read_idx transforms
    """,
    "train": "Callback LRFinder evaluate metrics predict",
    "nn": """
        AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d
        AlphaDropout AvgPool1d AvgPool3d BCELoss BatchNorm1d BatchNorm3d Bilinear CELU CTCLoss ChannelShuffle
        ConstantPad1d ConstantPad2d ConstantPad3d Conv1d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d
        CosineEmbeddingLoss CosineSimilarity CrossMapLRN2d Dropout1d Dropout2d Dropout3d ELU EmbeddingBag
        FeatureAlphaDropout Fold FractionalMaxPool2d FractionalMaxPool3d GLU GRU GRUCell GaussianNLLLoss GroupNorm
        Hardshrink Hardsigmoid Hardswish Hardtanh HingeEmbeddingLoss InstanceNorm1d InstanceNorm2d InstanceNorm3d
        LPPool1d LPPool2d LPPool3d LSTM LSTMCell LocalResponseNorm LogSigmoid MarginRankingLoss MaxPool1d MaxPool3d
        MaxUnpool1d MaxUnpool2d MaxUnpool3d Mish ModuleDict MultiLabelMarginLoss MultiLabelSoftMarginLoss
        MultiMarginLoss MultiheadAttention NLLLoss2d PReLU PairwiseDistance
        PixelShuffle PixelUnshuffle PoissonNLLLoss RMSNorm RNN RNNCell RReLU ReLU6 ReflectionPad1d ReflectionPad2d
        ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d SELU SmoothL1Loss SoftMarginLoss Softmax2d
        Softmin Softplus Softshrink Softsign Tanhshrink Threshold Transformer TransformerDecoder
        TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer TripletMarginLoss
        TripletMarginWithDistanceLoss Unflatten Unfold Upsample UpsamplingBilinear2d UpsamplingNearest2d ZeroPad1d
        ZeroPad2d ZeroPad3d
    """,
    "nn.functional": """
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
        adaptive_max_pool3d affine_grid alpha_dropout avg_pool1d avg_pool3d batch_norm bilinear channel_shuffle conv3d
        conv_transpose1d conv_transpose3d cosine_embedding_loss ctc_loss dropout1d dropout2d dropout3d embedding_bag
        feature_alpha_dropout fold fractional_max_pool2d fractional_max_pool3d glu grid_sample group_norm
        gumbel_softmax hardshrink hardsigmoid hardswish hardtanh instance_norm interpolate local_response_norm
        logsigmoid lp_pool1d lp_pool2d lp_pool3d max_pool1d max_pool3d max_unpool1d max_unpool2d max_unpool3d mish
        multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss normalize pairwise_distance pdist
        pixel_shuffle pixel_unshuffle rms_norm rrelu softmin softshrink softsign tanhshrink
        triplet_margin_with_distance_loss unfold
    """,
}


def missing(place: str, name: str) -> AttributeError:
    """The error for a name that is not there.

    Args:
        place: where it was asked for: ``gc``, ``Tensor``, or a part of the package such as ``nn.functional``.
        name: what was asked for.
    """
    advice = _ADVICE.get(place, {}).get(name)
    if place == "Tensor" and advice is None and not name.startswith("_"):
        advice = _in_place(name) if name.endswith("_") else _ADVICE["gc"].get(name)
    planned = " ".join((_PLANNED.get(place, ""), _PLANNED["gc"] if place == "Tensor" else "")).split()
    if advice is None and name not in planned:  # as Python says it, which adds a suggestion
        module = {"gc": "graphcore", "random": "graphcore.api.random"}.get(place, f"graphcore.{place}")
        holder = "'Tensor' object" if place == "Tensor" else f"module {module!r}"
        return AttributeError(f"{holder} has no attribute {name!r}", name=name, obj=sys.modules.get(module))
    whole = f"{place}.{name}" if place in ("gc", "Tensor") else f"gc.{place}.{name}"
    text = f"{whole} is not in this version" if name in planned else f"there is no {whole}"
    return SignpostError(text + ("" if advice is None else f": {advice}"), name=name)


def _in_place(name: str) -> str:
    return f"tensors are immutable; write t = t.{name.rstrip('_')}(...), or t = t.at[index].set(value)"

"""Models of libraries that nobody here made, with random weights at small sizes, for ``benchmarks/outside.py``.

Each is built as its library's users build it. A library that is not installed makes its rows "not installed".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

Built = tuple[nn.Module, tuple[Any, ...]]


class Outside(NamedTuple):
    """A model of another library.

    Attributes:
        kind: What kind of network it is, for the page.
        package: The package that it comes from, as it is installed.
        build: Makes the model and its inputs.
        checkpoint: Its method that turns gradient checkpointing on.
    """

    kind: str
    package: str
    build: Callable[[], Built]
    checkpoint: str = ""


OUTSIDE: dict[str, Outside] = {}


def tokens(*shape: int) -> torch.Tensor:
    """Ids of a vocabulary of 50, none of which stands for padding."""
    return torch.randint(3, 50, shape)


# ---- transformers -------------------------------------------------------------------------------------------------

WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {"vocab_size": 50, **WIDE}
IMAGE = {"image_size": 32, "patch_size": 8, **WIDE}
CAUSAL = {**TEXT, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {**CAUSAL, "num_key_value_heads": 2}


def of_transformers(name: str, inputs: Callable[[], tuple[Any, ...]], **options: Any) -> Callable[[], Built]:
    """A model of transformers by its class name, its configuration's class being that of its family."""

    def build() -> Built:
        library = importlib.import_module("transformers")
        model = getattr(library, name)
        return model(model.config_class(**options)), inputs()

    return build


def add_transformers() -> None:
    """Encoders, decoders, vision, speech and time series."""

    def add(name: str, kind: str, inputs: Callable[[], tuple[Any, ...]], check: Any = True, **options: Any) -> None:
        OUTSIDE[f"transformers {name}"] = Outside(
            kind, "transformers", of_transformers(name, inputs, **options),
            "gradient_checkpointing_enable" if check else "",
        )  # fmt: skip

    text = lambda: (tokens(2, 12),)  # noqa: E731
    image = lambda: (torch.randn(2, 3, 32, 32),)  # noqa: E731
    add("BertForSequenceClassification", "transformer, text", text, **TEXT)
    add("RobertaForMaskedLM", "transformer, text", text, **TEXT, pad_token_id=0)
    add("AlbertModel", "transformer, text", text, **TEXT, embedding_size=16)
    add("ElectraForSequenceClassification", "transformer, text", text, **TEXT, embedding_size=16)
    add("DebertaV2Model", "transformer, text", text, **TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"])
    small = {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    add("DistilBertForSequenceClassification", "transformer, text", text, **small)
    add("GPT2LMHeadModel", "transformer, text", text, vocab_size=50, n_embd=32, n_layer=2, n_head=4, use_cache=False,
        bos_token_id=1, eos_token_id=2)  # fmt: skip
    add("GPTNeoXForCausalLM", "transformer, text", text, **CAUSAL)
    add("LlamaForCausalLM", "transformer, text", text, **GROUPED)
    add("MistralForCausalLM", "transformer, text", text, **GROUPED)
    add("Qwen2ForCausalLM", "transformer, text", text, **GROUPED)
    add("Qwen3ForCausalLM", "transformer, text", text, **GROUPED, head_dim=8)
    add("GemmaForCausalLM", "transformer, text", text, **GROUPED, head_dim=8)
    add("PhiForCausalLM", "transformer, text", text, **CAUSAL)
    add("MixtralForCausalLM", "mixture of experts", text, **GROUPED, num_local_experts=2, num_experts_per_tok=1)
    add("MambaForCausalLM", "state space", text, vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=4,
        use_cache=False, pad_token_id=0, bos_token_id=1, eos_token_id=2)  # fmt: skip
    add("T5EncoderModel", "transformer, text", text, vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2,
        num_heads=4)  # fmt: skip
    add("T5ForConditionalGeneration", "transformer, text", lambda: (tokens(2, 12), torch.ones(2, 12), tokens(2, 7)),
        vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, use_cache=False,
        decoder_start_token_id=0)  # fmt: skip
    halves = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    feet = {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "d_model": 32}
    add("BartModel", "transformer, text", text, vocab_size=50, **halves, **feet, use_cache=False, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)  # fmt: skip
    add("ViTForImageClassification", "transformer, images", image, **IMAGE)
    add("DeiTForImageClassification", "transformer, images", image, **IMAGE)
    add("BeitForImageClassification", "transformer, images", image, **IMAGE, use_relative_position_bias=True)
    add("Dinov2ForImageClassification", "transformer, images", image, **{**IMAGE, "mlp_ratio": 2})
    add("ViTMAEForPreTraining", "transformer, images", image, **IMAGE, decoder_hidden_size=16,
        decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=24)  # fmt: skip
    stages = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4]}
    add("SwinForImageClassification", "transformer, images", image, image_size=32, patch_size=2, window_size=4,
        **stages)  # fmt: skip
    add("Swinv2ForImageClassification", "transformer, images", image, image_size=32, patch_size=2, window_size=4,
        **stages)  # fmt: skip
    pyramid = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}
    add("SegformerForSemanticSegmentation", "transformer, images", lambda: (torch.randn(2, 3, 64, 64),), **pyramid,
        decoder_hidden_size=24)  # fmt: skip
    add("PvtForImageClassification", "transformer, images", lambda: (torch.randn(2, 3, 64, 64),), image_size=64,
        **pyramid)  # fmt: skip
    add("ConvNextV2ForImageClassification", "convolutional", image, check=False, hidden_sizes=[8, 12, 16, 24],
        depths=[1, 1, 1, 1])  # fmt: skip
    add("ResNetForImageClassification", "convolutional", image, check=False, embedding_size=8,
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])  # fmt: skip
    add("VideoMAEForVideoClassification", "transformer, images", lambda: (torch.randn(2, 4, 3, 32, 32),), **IMAGE,
        num_frames=4)  # fmt: skip
    speech = {"conv_dim": (8, 8, 8), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3), "num_conv_pos_embeddings": 16,
              "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 3,
              "apply_spec_augment": False, "layerdrop": 0.0}  # fmt: skip
    add("Wav2Vec2ForCTC", "transformer, speech", lambda: (torch.randn(2, 800),), **TEXT, **speech)
    add("HubertModel", "transformer, speech", lambda: (torch.randn(2, 800),), **TEXT, **speech)
    add("ASTForAudioClassification", "transformer, speech", lambda: (torch.randn(2, 32, 16),), **WIDE, patch_size=8,
        frequency_stride=8, time_stride=8, max_length=32, num_mel_bins=16)  # fmt: skip
    series = {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 16,
              "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24, "prediction_length": 4}  # fmt: skip
    add("PatchTSTForPrediction", "time series", lambda: (torch.randn(2, 32, 3),), **series)
    add("PatchTSMixerForPrediction", "time series", lambda: (torch.randn(2, 32, 3),), check=False,
        num_input_channels=3, context_length=32, patch_length=8, patch_stride=8, d_model=16, num_layers=2,
        prediction_length=4)  # fmt: skip
    add("TimeSeriesTransformerForPrediction", "time series",
        lambda: (torch.randn(2, 19), torch.randn(2, 19, 1), torch.ones(2, 19), None, None, torch.randn(2, 4),
                 torch.randn(2, 4, 1)),
        prediction_length=4, context_length=12, lags_sequence=[1, 7], num_time_features=1, d_model=16, use_cache=False,
        encoder_layers=2, decoder_layers=2, encoder_ffn_dim=24, decoder_ffn_dim=24)  # fmt: skip
    add("DetrForObjectDetection", "detector", lambda: (torch.randn(2, 3, 64, 64),), num_queries=5, **halves, **feet,
        use_timm_backbone=True, use_pretrained_backbone=False, backbone="resnet18", backbone_config=None)  # fmt: skip
    add("RwkvForCausalLM", "state space", text, vocab_size=50, hidden_size=32, num_hidden_layers=2,
        attention_hidden_size=32, intermediate_size=48, use_cache=False)  # fmt: skip
    add("FNetModel", "transformer, text", text, **{k: v for k, v in TEXT.items() if k != "num_attention_heads"})


# ---- timm and torchvision ------------------------------------------------------------------------------------------


ATTENDING = ("bat_resnext26ts", "halonet26t", "lambda_resnet26rpt_256", "botnet26t_256")
"""Convolutional networks with attention over places, whose number they know from the start."""


def add_timm() -> None:
    """Kinds of timm's and torchvision's that the table of families has not."""

    def of_timm(name: str, size: int, options: dict[str, Any]) -> Callable[[], Built]:
        def build() -> Built:
            timm = importlib.import_module("timm")
            return timm.create_model(name, num_classes=10, **options), (torch.randn(2, 3, size, size),)

        return build

    def add(name: str, kind: str, size: int = 64, **options: Any) -> None:
        OUTSIDE[f"timm {name}"] = Outside(kind, "timm", of_timm(name, size, options), "set_grad_checkpointing")

    seen = "transformer, images"
    sized = {"img_size": 64}
    add("cait_xxs24_224", seen, depth=4, **sized)
    add("beit_base_patch16_224", seen, depth=2, embed_dim=64, num_heads=4, **sized)
    add("eva02_tiny_patch14_224", seen, size=56, depth=2, img_size=56)
    add("swinv2_tiny_window8_256", seen, embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4,
        **sized)  # fmt: skip
    add("maxvit_rmlp_pico_rw_256", seen, **sized)
    add("coatnet_nano_rw_224", seen, **sized)
    add("coat_tiny", seen, **sized)
    add("tiny_vit_5m_224", seen)
    add("xcit_tiny_12_p16_224", seen, depth=3, **sized)
    add("crossvit_tiny_240", seen, size=240)
    add("twins_svt_small", seen, **sized)
    add("volo_d1_224", seen, **sized)
    add("pvt_v2_b0", seen)
    add("levit_128s", seen, **sized)
    add("visformer_tiny", seen, **sized)
    add("mobilevitv2_050", seen)
    add("efficientformer_l1", seen, size=224)
    add("efficientformerv2_s0", seen, **sized)
    add("fastvit_t8", seen)
    add("repvit_m0_9", seen)
    add("nest_tiny", seen, size=64, **sized)
    add("gcvit_xxtiny", seen, **sized)
    add("davit_tiny", seen, depths=(1, 1, 1, 1), embed_dims=(16, 32, 64, 128), num_heads=(1, 2, 4, 8))
    add("focalnet_tiny_srf", "convolutional")
    add("hiera_tiny_224", seen, **sized)
    add("naflexvit_base_patch16_gap", seen, depth=2, embed_dim=64, num_heads=4)
    plain = """res2net50_26w_4s dpn48b skresnet18 cspresnext50 cspdarknet53 mambaout_femto inception_v4
    inception_resnet_v2 convnextv2_atto regnetx_002 regnetz_005 ghostnetv2_100 resnest14d seresnet18 ecaresnet26t
    mixnet_s tf_efficientnetv2_b0 nf_regnet_b0 selecsls42 xception41 pnasnet5large rexnet_100 hardcorenas_a
    mobilenetv4_conv_small starnet_s1 vovnet39a gernet_s eca_nfnet_l0 bat_resnext26ts halonet26t lambda_resnet26rpt_256
    botnet26t_256 cs3darknet_s convmixer_768_32 mobilenetv3_small_050 repghostnet_050 inception_next_atto"""
    for name in plain.split():
        size = 96 if "ception" in name or "nasnet" in name else 64
        add(name, "convolutional", size=256 if name in ATTENDING else size)
    add("gmlp_s16_224", "MLP", img_size=64)
    add("gmixer_24_224", "MLP", img_size=64)

    def vision(name: str, size: int, options: dict[str, Any]) -> Callable[[], Built]:
        def build() -> Built:
            models = importlib.import_module("torchvision.models")
            for part in name.split(".")[:-1]:
                models = getattr(models, part)
            return getattr(models, name.split(".")[-1])(**options), (torch.randn(2, 3, size, size),)

        return build

    def add_vision(name: str, kind: str, size: Any = 64, **options: Any) -> None:
        OUTSIDE[f"torchvision {name}"] = Outside(kind, "torchvision", vision(name, size, options))

    add_vision("googlenet", "convolutional", num_classes=10, init_weights=False, aux_logits=True)
    add_vision("inception_v3", "convolutional", size=160, num_classes=10, init_weights=False, aux_logits=True)
    add_vision("swin_v2_t", seen, num_classes=10)
    add_vision("maxvit_t", seen, size=224, num_classes=10)
    none = {"weights": None, "weights_backbone": None}
    add_vision("segmentation.deeplabv3_mobilenet_v3_large", "segmentation", num_classes=5, **none)
    add_vision("segmentation.fcn_resnet50", "segmentation", num_classes=5, aux_loss=True, **none)
    add_vision("detection.ssdlite320_mobilenet_v3_large", "detector", size=320, num_classes=5, **none)


# ---- graphs --------------------------------------------------------------------------------------------------------


def graph(nodes: int = 12, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes on a ring with chords, each with features, and the edges."""
    here = torch.arange(nodes)
    edges = torch.stack([here.repeat(3), torch.cat([(here + step) % nodes for step in (1, 2, 5)])])
    return torch.randn(nodes, width), torch.cat([edges, edges.flip(0)], 1)


def atoms() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kinds of atoms, places, and to which of two molecules each belongs."""
    return torch.randint(1, 9, (12,)), torch.randn(12, 3) * 2, torch.arange(2).repeat_interleave(6)


def add_graphs() -> None:
    """PyTorch Geometric's models, and nets of its layers."""

    def geometric() -> Any:
        return importlib.import_module("torch_geometric.nn")

    def add(name: str, build: Callable[[], Built]) -> None:
        OUTSIDE[f"PyG {name}"] = Outside("graph", "torch_geometric", build)

    def basic(name: str, **options: Any) -> Callable[[], Built]:
        return lambda: (getattr(geometric(), name)(8, 16, 3, 4, **options), graph())

    for name in ("GCN", "GIN", "GAT", "GraphSAGE", "EdgeCNN"):
        add(name, basic(name, norm="batch_norm"))
    add("GATv2", basic("GAT", v2=True, heads=4, jk="cat"))
    add("GIN, JK lstm", basic("GIN", jk="lstm"))
    add("GCN, LayerNorm, JK max", basic("GCN", norm="layer_norm", jk="max"))

    class Layers(nn.Module):
        """Two layers of one kind with ReLU between them."""

        def __init__(self, make: Callable[[int, int], nn.Module], more: Callable[[int], tuple[Any, ...]]) -> None:
            super().__init__()
            self.one, self.two, self.head = make(8, 16), make(16, 16), nn.Linear(16, 3)
            self.more = more

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            more = self.more(edge_index.shape[1])
            return self.head(self.two(self.one(x, edge_index, *more).relu(), edge_index, *more).relu())

    def layers(make: Callable[[int, int], nn.Module], more: Any = lambda _edges: ()) -> Callable[[], Built]:
        return lambda: (Layers(make, more), graph())

    degree = torch.tensor([0, 0, 0, 0, 0, 0, 12])
    few = ["mean", "max", "std"]
    add("PNAConv", layers(lambda a, b: geometric().PNAConv(a, b, few, ["identity", "amplification"], degree, towers=2)))
    add("TransformerConv", layers(lambda a, b: geometric().TransformerConv(a, b // 4, heads=4, beta=True)))
    add("RGCNConv", layers(lambda a, b: geometric().RGCNConv(a, b, 3), lambda edges: (torch.arange(edges) % 3,)))
    add("FiLMConv", layers(lambda a, b: geometric().FiLMConv(a, b)))
    add("GENConv", layers(lambda a, b: geometric().GENConv(a, b, learn_t=True)))
    add("ChebConv", layers(lambda a, b: geometric().ChebConv(a, b, 3)))
    add("TAGConv", layers(lambda a, b: geometric().TAGConv(a, b)))
    add("ARMAConv", layers(lambda a, b: geometric().ARMAConv(a, b, num_stacks=2, num_layers=2)))
    add("SuperGATConv", layers(lambda a, b: geometric().SuperGATConv(a, b // 4, heads=4)))
    add("GatedGraphConv", layers(lambda _a, b: geometric().GatedGraphConv(b, 2)))
    add("GMMConv", layers(lambda a, b: geometric().GMMConv(a, b, 2, 3), lambda edges: (torch.ones(edges, 2),)))
    add("GPSConv", layers(lambda a, b: geometric().GPSConv(b, geometric().GCNConv(b, b), heads=4) if a == b
                          else geometric().GCNConv(a, b)))  # fmt: skip
    add("NNConv", layers(lambda a, b: geometric().NNConv(a, b, nn.Sequential(nn.Linear(2, 12), nn.ReLU(),
        nn.Linear(12, a * b))), lambda edges: (torch.linspace(-1, 1, 2 * edges).view(edges, 2),)))  # fmt: skip

    def deep() -> Built:
        def layer() -> nn.Module:
            conv = geometric().GENConv(16, 16, num_layers=2, norm="layer")
            return geometric().DeepGCNLayer(conv, nn.LayerNorm(16), nn.ReLU(), block="res+", dropout=0.0)

        body = geometric().Sequential("x, e", [(nn.Linear(8, 16), "x -> x"), (layer(), "x, e -> x"),
                                               (layer(), "x, e -> x"), (nn.Linear(16, 3), "x -> x")])  # fmt: skip
        return body, graph()

    add("DeepGCN", deep)
    add("GraphUNet", lambda: (geometric().GraphUNet(8, 16, 3, depth=2, pool_ratios=0.5), graph()))
    add("SchNet", lambda: (geometric().SchNet(16, 16, 2, 10, 5.0), atoms()))
    add("DimeNet++", lambda: (geometric().DimeNetPlusPlus(16, 1, 2, 8, 8, 8, 3, 4), atoms()))
    add("ViSNet", lambda: (
        importlib.import_module("torch_geometric.nn.models").ViSNet(hidden_channels=16, num_heads=4, num_layers=2,
                                                                    num_rbf=8), atoms()))  # fmt: skip
    add("AttentiveFP", lambda: (
        geometric().AttentiveFP(8, 16, 3, 2, 2, 2), (*graph(), torch.randn(72, 2), torch.zeros(12, dtype=torch.long))
    ))  # fmt: skip
    add("PointTransformerConv", lambda: (_Points(geometric()), (*graph(), torch.randn(12, 3))))

    class _Points(nn.Module):
        def __init__(self, library: Any) -> None:
            super().__init__()
            self.conv, self.head = library.PointTransformerConv(8, 16), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x, place, edge_index).relu())


# ---- science, medicine, diffusion, flows ---------------------------------------------------------------------------


def made(module: str, name: str, inputs: Callable[[], tuple[Any, ...]], *args: Any, **options: Any) -> Any:
    """A builder of ``module.name(*args, **options)``."""
    return lambda: (getattr(importlib.import_module(module), name)(*args, **options), inputs())


def add_science() -> None:
    """Neural operators, medical images, diffusion, flows, atoms."""

    def add(name: str, kind: str, package: str, build: Callable[[], Built], checkpoint: str = "") -> None:
        OUTSIDE[name] = Outside(kind, package, build, checkpoint)

    field = lambda: (torch.randn(2, 3, 16, 16),)  # noqa: E731
    operator = {"in_channels": 3, "out_channels": 1, "hidden_channels": 12}
    for name, more in {
        "FNO": {"n_modes": (6, 6), "n_layers": 2},
        "TFNO": {"n_modes": (6, 6), "n_layers": 2, "factorization": "Tucker", "rank": 0.5},
        "UNO": {"n_layers": 3, "uno_out_channels": [12, 12, 12], "uno_n_modes": [[5, 5]] * 3,
                "uno_scalings": [[1.0, 1.0], [0.5, 0.5], [2, 2]], "channel_mlp_skip": "linear"},
        "LocalNO": {"n_modes": (6, 6), "n_layers": 2, "default_in_shape": (16, 16)},
        "CODANO": {"n_layers": 2, "n_modes": [[4, 4]] * 2, "output_variable_codimension": 1,
                   "hidden_variable_codimension": 8, "lifting_channels": 8, "n_heads": [2, 2],
                   "per_layer_scaling_factors": [[1, 1]] * 2, "attention_scaling_factors": [1, 1]},
    }.items():  # fmt: skip
        common = {} if name == "CODANO" else operator
        add(f"neuraloperator {name}", "neural operator", "neuraloperator",
            made(f"neuralop.models{'.local_no' if name == 'LocalNO' else ''}", name, field,
                 **common, **more))  # fmt: skip
    volume = lambda: (torch.randn(2, 1, 32, 32, 32),)  # noqa: E731
    plane = lambda: (torch.randn(2, 1, 64, 64),)  # noqa: E731
    nets = "monai.networks.nets"
    add("monai UNet", "segmentation", "monai", made(nets, "UNet", volume, 3, 1, 2, (4, 8, 16), (2, 2), num_res_units=2))
    add("monai SegResNet", "segmentation", "monai", made(nets, "SegResNet", plane, 2, 8, 1, 2))
    add("monai UNETR", "segmentation", "monai", made(nets, "UNETR", plane, 1, 2, (64, 64), 4, 24, 32, 4,
        spatial_dims=2))  # fmt: skip
    add("monai SwinUNETR", "segmentation", "monai",
        made(nets, "SwinUNETR", plane, 1, 2, feature_size=12, spatial_dims=2, depths=(1, 1, 1, 1)))  # fmt: skip
    add("monai AttentionUnet", "segmentation", "monai", made(nets, "AttentionUnet", plane, 2, 1, 2, (4, 8, 16), (2, 2)))
    add("monai DynUNet", "segmentation", "monai",
        made(nets, "DynUNet", plane, 2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 16]))  # fmt: skip
    add("monai VNet", "segmentation", "monai", made(nets, "VNet", plane, 2, 1, 2))
    add("monai BasicUNetPlusPlus", "segmentation", "monai",
        made(nets, "BasicUNetPlusPlus", plane, 2, 1, 2, (4, 4, 8, 12, 16, 4)))  # fmt: skip
    add("monai DenseNet121", "convolutional", "monai", made(nets, "DenseNet", plane, 2, 1, 2, 8, 4, (2, 2)))
    add("monai MILModel", "attention pooling", "monai",
        made(nets, "MILModel", lambda: (torch.randn(2, 3, 3, 64, 64),), 2, pretrained=False, backbone="resnet18",
             mil_mode="att"))  # fmt: skip
    add("monai FlexibleUNet", "segmentation", "monai", made(nets, "FlexibleUNet", lambda: (torch.randn(2, 3, 64, 64),),
        3, 2, "efficientnet-b0", pretrained=False, decoder_channels=(32, 24, 16, 12, 8)))  # fmt: skip
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    image = lambda: (torch.randn(2, 3, 16, 16), torch.tensor([5, 90]))  # noqa: E731
    turn = "enable_gradient_checkpointing"
    add("diffusers UNet2DModel", "diffusion", "diffusers", made("diffusers", "UNet2DModel", image, sample_size=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4, **blocks), turn)  # fmt: skip
    add("diffusers UNet2DConditionModel", "diffusion", "diffusers", made("diffusers", "UNet2DConditionModel",
        lambda: (torch.randn(2, 4, 16, 16), torch.tensor([5, 90]), torch.randn(2, 6, 12)), sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12, attention_head_dim=4, **blocks), turn)  # fmt: skip
    add("diffusers AutoencoderKL", "diffusion", "diffusers", made("diffusers", "AutoencoderKL",
        lambda: (torch.randn(2, 3, 16, 16),), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, **blocks), turn)  # fmt: skip
    add("diffusers VQModel", "diffusion", "diffusers", made("diffusers", "VQModel",
        lambda: (torch.randn(2, 3, 16, 16),), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, num_vq_embeddings=16, **blocks))  # fmt: skip
    add("diffusers DiTTransformer2DModel", "diffusion", "diffusers", made("diffusers", "DiTTransformer2DModel",
        lambda: (torch.randn(2, 4, 16, 16), torch.tensor([5, 90]), torch.tensor([1, 2])), num_attention_heads=2,
        attention_head_dim=8, sample_size=16, num_layers=2, norm_num_groups=4, num_embeds_ada_norm=10),
        turn)  # fmt: skip

    def flow(name: str, *args: Any, **options: Any) -> Callable[[], Built]:
        class LogDensity(nn.Module):
            """The log density of data under the flow: what a training needs."""

            def __init__(self) -> None:
                super().__init__()
                self.flow = getattr(importlib.import_module("zuko.flows"), name)(*args, **options)

            def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
                return self.flow(context).log_prob(x)

        return lambda: (LogDensity(), (torch.rand(5, 4) * 0.8 + 0.1, torch.randn(5, 3)))

    for name in ("MAF", "NSF", "NICE", "NAF", "UNAF", "SOSPF", "CNF", "GF"):
        small = {"hidden_features": (16, 16)} if name != "GF" else {}
        add(f"zuko {name}", "flow", "zuko", flow(name, 4, 3, **({"transforms": 2} if name != "CNF" else {}), **small))

    class Realnvp(nn.Module):
        """RealNVP of nflows by its log density."""

        def __init__(self) -> None:
            super().__init__()
            self.flow = importlib.import_module("nflows.flows.realnvp").SimpleRealNVP(4, 16, 2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.flow.log_prob(x)

    add("nflows RealNVP", "flow", "nflows", lambda: (Realnvp(), (torch.randn(5, 4),)))
    picture = {"image_size": 32, "patch_size": 8, "num_classes": 10, "dim": 32, "depth": 2, "heads": 4, "mlp_dim": 48}
    seen = lambda: (torch.randn(2, 3, 32, 32),)  # noqa: E731
    for path, options in {
        "vit_pytorch.ViT": picture,
        "vit_pytorch.simple_vit.SimpleViT": picture,
        "vit_pytorch.cait.CaiT": {**picture, "cls_depth": 1},
        "vit_pytorch.deepvit.DeepViT": picture,
        "vit_pytorch.t2t.T2TViT": {"dim": 32, "image_size": 32, "depth": 2, "heads": 4, "mlp_dim": 48,
                                   "num_classes": 10, "t2t_layers": ((7, 4), (3, 2))},
        "vit_pytorch.cct.CCT": {"img_size": 32, "embedding_dim": 32, "num_layers": 2, "num_heads": 4, "mlp_ratio": 2,
                                "num_classes": 10},
        "vit_pytorch.crossformer.CrossFormer": {"num_classes": 10, "dim": (32, 32, 64, 64), "depth": (1, 1, 1, 1),
                                                "global_window_size": (4, 2, 1, 1), "local_window_size": (4, 2, 2, 1)},
        "vit_pytorch.rvt.RvT": picture,
    }.items():  # fmt: skip
        module, _, name = path.rpartition(".")
        size = 64 if name == "CrossFormer" else 32
        inputs = seen if size == 32 else (lambda: (torch.randn(2, 3, 64, 64),))
        add(f"vit-pytorch {name}", "transformer, images", "vit-pytorch", made(module, name, inputs, **options))
    add("mace ScaleShiftMACE", "atoms", "mace-torch", mace)
    add("schnetpack PaiNN", "atoms", "schnetpack", schnetpack("PaiNN"))
    add("schnetpack SchNet", "atoms", "schnetpack", schnetpack("SchNet"))
    add("CHGNet", "atoms", "chgnet", chgnet)


def neighbours(places: torch.Tensor, batch: torch.Tensor, cutoff: float = 5.0) -> torch.Tensor:
    """Pairs of atoms of one molecule that are closer than the cutoff."""
    near = torch.cdist(places, places) < cutoff
    return (near & (batch[:, None] == batch[None]) & ~torch.eye(len(batch), dtype=torch.bool)).nonzero().t()


def mace() -> Built:
    """MACE with energies and forces, as its command builds it, at a small size."""
    modules = importlib.import_module("mace.modules")  # before e3nn, whose constants it knows how to read
    o3 = importlib.import_module("e3nn.o3")
    numpy = importlib.import_module("numpy")
    model = modules.ScaleShiftMACE(
        r_max=5.0, num_bessel=4, num_polynomial_cutoff=5, max_ell=2, num_interactions=2, num_elements=2,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        hidden_irreps=o3.Irreps("8x0e + 8x1o"), MLP_irreps=o3.Irreps("8x0e"), atomic_energies=numpy.zeros(2),
        avg_num_neighbors=5.0, atomic_numbers=[1, 6], correlation=2, gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0, atomic_inter_shift=0.0,
    )  # fmt: skip
    _, places, batch = atoms()
    edges = neighbours(places, batch)
    data = {
        "positions": places, "node_attrs": nn.functional.one_hot(torch.arange(12) % 2, 2).float(), "batch": batch,
        "edge_index": edges, "shifts": torch.zeros(edges.shape[1], 3), "unit_shifts": torch.zeros(edges.shape[1], 3),
        "cell": torch.zeros(6, 3), "ptr": torch.tensor([0, 6, 12]), "head": torch.zeros(2, dtype=torch.long),
    }  # fmt: skip
    return model, (data,)


def schnetpack(name: str) -> Callable[[], Built]:
    """A potential of schnetpack with energies and forces."""

    def build() -> Built:
        # Its loader takes the name of a type from a private place of torch that no longer has it.
        loader = importlib.import_module("torch.utils.data.dataloader")
        vars(loader).setdefault("T_co", TypeVar("T_co", covariant=True))
        library = importlib.import_module("schnetpack")
        kinds, places, batch = atoms()
        edges = neighbours(places, batch)
        body = getattr(importlib.import_module("schnetpack.representation"), name)(
            n_atom_basis=16, n_interactions=2, radial_basis=library.nn.GaussianRBF(8, 5.0),
            cutoff_fn=library.nn.CosineCutoff(5.0))  # fmt: skip
        atomistic = importlib.import_module("schnetpack.atomistic")
        model = importlib.import_module("schnetpack.model").NeuralNetworkPotential(
            body, [atomistic.PairwiseDistances()],
            [atomistic.Atomwise(16, output_key="energy"), atomistic.Forces(energy_key="energy")])  # fmt: skip
        return model, ({
            "_atomic_numbers": kinds, "_positions": places, "_idx_m": batch, "_idx_i": edges[0], "_idx_j": edges[1],
            "_offsets": torch.zeros(edges.shape[1], 3), "_n_atoms": torch.tensor([6, 6]),
            "_cell": torch.zeros(2, 3, 3),
        },)  # fmt: skip

    return build


def chgnet() -> Built:
    """CHGNet at a small size, on two crystals."""
    library = importlib.import_module("chgnet.model")
    structure = importlib.import_module("pymatgen.core")
    model = library.CHGNet(atom_fea_dim=16, bond_fea_dim=16, angle_fea_dim=16, num_radial=9, num_angular=9, n_conv=2,
                           mlp_hidden_dims=(16, 16), atom_conv_hidden_dim=16, bond_conv_hidden_dim=16)  # fmt: skip
    crystals = [
        structure.Structure(structure.Lattice.cubic(side), kinds, [[0, 0, 0], [0.5, 0.5, 0.45]])
        for side, kinds in ((3.2, ["Na", "Cl"]), (3.4, ["Li", "O"]))
    ]
    return model, ([model.graph_converter(crystal) for crystal in crystals],)


# ---- by hand, and torch's own --------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A recurrent layer of torch's with a head on its last output."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.body = getattr(nn, kind)(6, 16, batch_first=True, **options)
        self.head = nn.Linear(16 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of a sequence (batch, steps, 6), the last output's (batch, 3)."""
        return self.head(self.body(x)[0][:, -1])


class HandLSTM(nn.Module):
    """An LSTM written out, with one product for its four gates."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.head = nn.Linear(6 + 16, 64), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of a sequence (batch, steps, 6), the last state's (batch, 3)."""
        h = c = x.new_zeros(len(x), 16)
        for step in x.unbind(1):
            i, f, g, o = self.gates(torch.cat([step, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


class HandGRU(nn.Module):
    """A GRU written out, with layers of its own for each gate."""

    def __init__(self) -> None:
        super().__init__()
        self.reset, self.update, self.new = (nn.Linear(6 + 16, 16) for _ in range(3))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of a sequence (batch, steps, 6), the last state's (batch, 3)."""
        h = x.new_zeros(len(x), 16)
        for step in x.unbind(1):
            both = torch.cat([step, h], 1)
            z = self.update(both).sigmoid()
            h = (1 - z) * h + z * self.new(torch.cat([step, self.reset(both).sigmoid() * h], 1)).tanh()
        return self.head(h)


class DeepONet(nn.Module):
    """Branch and trunk, multiplied by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(10, 24), nn.Tanh(), nn.Linear(24, 16))
        self.trunk = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh())
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, u: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Of functions (batch, 10) and places (points, 2), values (batch, points)."""
        return torch.einsum("bp,np->bn", self.branch(u), self.trunk(y)) + self.bias


class KANLayer(nn.Module):
    """A layer of radial basis functions on every edge, as fast KANs have."""

    def __init__(self, inputs: int, outputs: int, grid: int = 5) -> None:
        super().__init__()
        self.grid: torch.Tensor
        self.register_buffer("grid", torch.linspace(-2, 2, grid))
        self.spline = nn.Parameter(torch.randn(outputs, inputs, grid) / (inputs * grid) ** 0.5)
        self.base = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (batch, inputs), (batch, outputs)."""
        basis = torch.exp(-(((x[..., None] - self.grid) * 1.5) ** 2))
        return self.base(nn.functional.silu(x)) + torch.einsum("big,oig->bo", basis, self.spline)


class Hamiltonian(nn.Module):
    """A Hamiltonian network: its output is a gradient by its input."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (batch, 4), the time derivatives (batch, 4)."""
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        q, p = slope.chunk(2, 1)
        return torch.cat([p, -q], 1)


def add_hand() -> None:
    """Recurrent networks, operators and KANs as papers write them."""
    sequence = lambda: (torch.randn(4, 7, 6),)  # noqa: E731
    kinds = {"LSTM, two layers": ("LSTM", {"num_layers": 2}), "GRU": ("GRU", {}), "RNN": ("RNN", {}),
             "LSTM, both ways": ("LSTM", {"bidirectional": True})}  # fmt: skip
    for name, (kind, options) in kinds.items():
        OUTSIDE[f"torch {name}"] = Outside(
            "recurrent", "torch", lambda k=kind, o=options: (Recurrent(k, **o), sequence())
        )
    rows: dict[str, tuple[str, Callable[[], Built]]] = {
        "LSTM by hand": ("recurrent", lambda: (HandLSTM(), sequence())),
        "GRU by hand": ("recurrent", lambda: (HandGRU(), sequence())),
        "DeepONet by hand": ("neural operator", lambda: (DeepONet(), (torch.randn(4, 10), torch.randn(7, 2)))),
        "KAN by hand": ("KAN", lambda: (nn.Sequential(KANLayer(6, 12), KANLayer(12, 12), KANLayer(12, 2)),
                                        (torch.randn(5, 6),))),
        "Hamiltonian network by hand": ("physics", lambda: (Hamiltonian(), (torch.randn(5, 4),))),
    }  # fmt: skip
    for name, (kind, build) in rows.items():
        OUTSIDE[name] = Outside(kind, "torch", build)


for _add in (add_hand, add_science, add_graphs, add_transformers, add_timm):
    _add()

__all__ = ["OUTSIDE", "Outside"]

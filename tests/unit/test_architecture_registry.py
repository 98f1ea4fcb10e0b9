"""Every architecture that the installed transformers registers inspects from its default config, or says why not."""

from __future__ import annotations

from collections import Counter

import pytest

from workbench.architecture.build import build_skeleton
from workbench.architecture.compute import compute_figures
from workbench.architecture.count import count_parameters
from workbench.architecture.describe import describe
from workbench.architecture.diagram import diagram
from workbench.architecture.facts import Subject, explain
from workbench.architecture.tree import flatten, module_tree
from workbench.errors import WorkbenchError

pytest.importorskip("torch")
auto = pytest.importorskip("transformers.models.auto.modeling_auto")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

CAUSAL = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
# All causal ones, in parts; encoders and encoder-decoders go the same way through the code, so that some will do.
PARTS = [
    *((CAUSAL, part, 4) for part in range(4)),
    ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", 1, 7),
    ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", 1, 7),
]
TOTALS: Counter[str] = Counter()


@pytest.mark.parametrize(("mapping", "start", "step"), PARTS)
def test_every_registered_architecture_inspects_or_gives_one_clear_line(mapping, start, step, capsys):
    registered = list(getattr(auto, mapping).items())[start::step]
    inspected = 0
    for model_type, named in registered:
        architecture = named if isinstance(named, str) else named[0]
        skeleton = built(model_type, architecture)
        if skeleton is not None:
            inspect(skeleton, architecture)
            inspected += 1
    TOTALS.update({f"{mapping} tried": len(registered), f"{mapping} inspected": inspected})
    with capsys.disabled():
        print(f"\n  {mapping}: {TOTALS[f'{mapping} inspected']} of {TOTALS[f'{mapping} tried']} inspect")
    assert inspected >= 0.8 * len(registered)


@pytest.mark.parametrize("model_type", ["vit", "clip", "whisper", "wav2vec2", "siglip", "voxtral_realtime_text"])
def test_models_of_other_than_text_inspect_too(model_type):
    skeleton = built(model_type)
    if skeleton is not None:
        inspect(skeleton, skeleton.architecture)


def built(model_type, architecture=None):
    try:
        return build_skeleton({"model_type": model_type, "architectures": [architecture]})
    except WorkbenchError as error:
        refusal = error
    assert refusal.kind in ("bad-config", "missing-package", "unknown-architecture"), (model_type, refusal)
    assert "\n" not in str(refusal), model_type
    assert refusal.remedy, model_type
    return None


def inspect(skeleton, architecture):
    assert skeleton.architecture == architecture
    counts, stages = count_parameters(skeleton), tuple(diagram(skeleton))
    tree = module_tree(skeleton)
    assert tree.parameters == counts.total == sum(counts.by_component.values()) > 0, architecture
    assert 0 < counts.active <= counts.total, architecture
    facts = describe(skeleton)
    explained = explain(Subject(skeleton, counts, facts, compute_figures(skeleton, counts), stages))
    assert {"parameters", "kind", "layers", "dtype"} <= {fact.key for fact in explained}, architecture
    assert all(fact.line.endswith(".") and "None" not in fact.line for fact in explained), architecture
    # What the diagram points at is in the tree.
    paths = {node.path for node in flatten(tree)}
    assert {block.path for stage in stages for block in stage.blocks if block.path} <= paths, architecture

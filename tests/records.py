"""Records that tests make up: the paper's workloads, sweeps, other methods, a GPU's, a failed one."""

from pathlib import Path

from lumos.suite import record
from lumos.suite.identity import digest

WORKLOADS = ("cfd", "fluid", "puremd", "cosmoflow", "em_denoise", "synthetic", "optical", "dms", "stemdl", "slstr",
             "ppa", "molhiv", "braintumor")  # fmt: skip


def side(score, params, *, gpu=False, factor=1.0, compact=False):
    """The figures of one network; ``factor`` is how many times faster than dense it is."""
    timed = {
        "latency_ms": {"p50": 0.2 / factor, "p95": 0.3 / factor, "batch": 1, "calls": 400},
        "throughput": 1000.0 * factor, "throughput_batch": 64,
        "dynamic": {"batch": 512, "samples_per_second": 900.0 * factor, "p50": 1.0, "p95": 2.0, "calls": 9,
                    "memory_mb": 100.0, "bound_mb": 128.0, "limit": "memory"},
        "peak_mb": 10.0 / factor, "peak_batch": 64, "energy_j": 4.0 / factor if gpu else None,
    }  # fmt: skip
    if compact:
        timed["speedup"] = {
            k: {"p50": factor, "p25": 0.9 * factor, "p75": 1.1 * factor} for k in ("latency", "throughput", "dynamic")
        }
    out = {"score": score, "params": params, "macs": 10 * params, "macs_traced": 10 * params, "bytes": 4 * params,
           "valid_score": score, "train_seconds": 10.0, "steps": 100, **timed}  # fmt: skip
    return out | ({"cpu": {k: v for k, v in timed.items() if k != "energy_j"}} if gpu else {})


def entry(workload="cfd", seed=0, run_id=None, *, cut=0.9, score=0.9, factor=4.0, gpu=False, old=False, **changes):
    """A finished run that cut a share of the parameters; ``old`` is one as the first version wrote it."""
    run_id = run_id or digest({"all": [workload, seed, cut, score, gpu, changes]})
    lumos = {"lambda": 1e-3, "target": {"params": None}, "tau": 0.6667, "t_l": 0.0, "t_u": 1.0} | changes.pop(
        "lumos", {}
    )
    out = {
        "schema": record.SCHEMA, "run_id": run_id, "status": "finished", "error": None,
        "workload": workload, "method": "lumos", "scale": "small", "seed": seed, "note": "made up by a test",
        "config": {"workload": {"seed": seed, "widths": [8, 8]}, "lumos": lumos, "scale": "small", "seed": seed,
                   "trainer": {"device": "auto", "max_steps": None}},
        "provenance": {"git": "0123456789abcdef", "device": "NVIDIA A100" if gpu else "cpu (2 threads)", "host": "here",
                       "command": f"run.py workload={workload} seed={seed}", "versions": {"torch": "2.15"},
                       "started_utc": f"2026-01-{seed + 1:02d}T00:00:00+00:00", "seconds": 20.0},
        "metric": {"name": "R2", "unit": "", "higher_is_better": True, "target": None},
        "features": ["a", "b", "c", "d"],
        "data": {"source": "generated", "n_train": 800, "n_valid": 100, "n_test": 100, "sha256": "0" * 64},
        "baselines": {"mean": 0.0}, "dense": side(0.92, 100_000, gpu=gpu),
        "compact": side(score, round(100_000 * (1 - cut)), gpu=gpu, factor=factor, compact=True),
        "gates": {"open": 30, "total": 300, "features_kept": ["a", "b"], "features_total": 4, "fixed": [],
                  "groups": {"input": {"open": 2, "total": 4}, "layers.0": {"open": 28, "total": 296}}},
        "steering": {"key": "lumos.lambda", "asked": 1e-3},
        "training": {"overhead": {"p50": 0.05, "p25": 0.02, "p75": 0.09}, "share": 0.003,
                     **{k: {"step_ms": {"p50": 2.0, "p95": 3.0, "calls": 50}, "peak_mb": mb}
                        for k, mb in (("dense", 8.0), ("gated", 9.0), ("compact", 2.0))}},
        "equivalence": {"max_abs_diff": 0.0, "max_rel_diff": 1e-16, "dtype": "float64"},
    }  # fmt: skip
    if old:
        del out["training"]
        for part in (out["dense"], out["compact"]):
            for key in ("dynamic", "macs_traced", "speedup", "peak_batch"):
                part.pop(key, None)
    return out | changes


def put(results: Path, made: dict, *, curve=True, features=True) -> Path:
    """Write a record where a run would, with its curve and its features."""
    folder = results / "runs" / made["workload"] / made["run_id"]
    record.write(folder, made)
    if curve:
        rows = [
            {"phase": phase, "epoch": i, "step": 10 * i, "loss": 1 / i, "valid": 1 - 1 / i,
             "open_gates": 30 if phase == "gated" and i < 4 else None}
            for phase in ("dense", "gated") for i in range(1, 7)
        ]  # fmt: skip
        record.write_curve(folder, rows)
    if features:
        rows = [
            {"feature": name, "kept": int(name in "ab"), "closed_at": None if name in "ab" else 40,
             "abs_pearson": 0.1 * i, "mutual_information": 0.3 * i}
            for i, name in enumerate("abcd")
        ]  # fmt: skip
        record.write_curve(folder, rows, "features.csv")
    return folder


def full(results: Path) -> Path:
    """A folder with everything: all workloads, seeds, sweeps, other methods, a GPU's run, a failed one, scaling."""
    for i, workload in enumerate(WORKLOADS):
        put(results, entry(workload, cut=0.5 + 0.03 * i, factor=1.5 + i, gpu=i % 3 == 0), curve=i < 4, features=i < 3)
    for seed in (1, 2):
        put(results, entry("synthetic", seed, cut=0.65, factor=6.5))
    for i, value in enumerate((1e-4, 1e-2, 1e-1)):
        put(results, entry("cfd", cut=0.3 + 0.2 * i, score=0.91 - 0.05 * i, lumos={"lambda": value}))
    for low in (0.1, 0.2):
        put(results, entry("puremd", lumos={"t_l": low, "t_u": 1 - low}))
    for method, cut in (("l1", 0.7), ("slimming", 0.72), ("depgraph", 0.71), ("oto", 0.6), ("scratch", 0.8)):
        put(results, entry("cfd", cut=cut, score=cut, method=method, gates=None, equivalence=None), features=False)
    failed = entry("fluid", 7, status="failed", error={"line": "out of <memory> & time", "traceback": ""})
    put(
        results,
        {k: v for k, v in failed.items() if k not in ("dense", "compact", "gates")},
        curve=False,
        features=False,
    )
    (results / "scaling.csv").write_text(
        "workload,method,processes,samples_per_second,device\n"
        + "".join(f"stemdl,{m},{n},{n * 95 + 5},cpu\n" for m in ("dense", "lumos") for n in (1, 2, 4))
    )
    return results

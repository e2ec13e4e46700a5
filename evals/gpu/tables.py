"""The measured part of docs/gpu.md: Markdown from the records of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu.figures import Results, load_rows, step_added, verdicts
from bros_sglang.evals.live.table import format_share
from bros_sglang.evals.step_time.presets import AFFINE

if TYPE_CHECKING:
    from collections.abc import Sequence

DRY_NOTE = "**A dry run on a CPU with a tiny model: the script is tried, the figures mean nothing.**"
PICTURES = {"load": "gpu-load.png", "fit": "gpu-fit.png"}


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def measured_part(results: Results, pictures: Sequence[str] = ()) -> str:
    """Return everything that a run measured, section by section; a section without figures is left out.

    `pictures` are the file names of those that were drawn, in docs/images/.
    """
    sections = [
        _host(results),
        _verdicts(results),
        _ceilings(results),
        _start(results),
        _load(results, pictures),
        _overhead(results),
        _waits(results),
        _memory(results),
        _hicache(results),
        _attention(results),
        _profile(results, pictures),
        _replay(results),
        _open(results),
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    return f"{DRY_NOTE}\n\n{text}" if results.dry and text.strip() else text


def _host(results: Results) -> str:
    host = results.of("host", "host")
    if host is None:
        return ""
    gpus = host["nvidia_smi"]["gpus"]
    device = host["device"]
    about = f"{gpus[0]['name']}, driver {gpus[0]['driver_version']}" if gpus else device["name"]
    core = "works" if host["rust_tree_core"]["works"] else "does not load here: the Python core is used"
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    return (
        f"## Host\n\n{about}. SGLang's Rust tree core {core}.\n\n"
        f"Versions: {versions}.\n\n```\n{results.about.get('command', '')}\n```"
    )


def _verdicts(results: Results) -> str:
    rows = [[v.wanted, v.measured, "yes" if v.met else "no"] for v in verdicts(results)]
    return "## Wanted, and measured\n\n" + markdown_table(("wanted", "measured", "met"), rows) if rows else ""


def _ceilings(results: Results) -> str:
    ceilings = results.of("ceilings", "ceilings")
    if ceilings is None:
        return ""
    rows = [
        ["matrix product, 16-bit, random data" if not results.dry else "matrix product, random data",
         f"{_number(ceilings['gemm_tflops'], 1)} TFLOP/s"],
        ["memory, bytes read and written", f"{_number(ceilings['memory_gb_per_s'])} GB/s"],
        ["device to pinned host memory", f"{_number(ceilings['to_host_gb_per_s'], 1)} GB/s"],
        ["pinned host memory to device", f"{_number(ceilings['to_device_gb_per_s'], 1)} GB/s"],
        ["256 bytes to the host", f"{_number(ceilings['small_copy_us'], 1)} µs"],
    ]  # fmt: skip
    return "## What the device reaches at its best\n\n" + markdown_table(("what", "median"), rows)


def _start(results: Results) -> str:
    rows = []
    for cell, r in results.stage("start").items():
        same = r.get("same_tokens")
        rows.append(
            [
                cell,
                r.get("graphs", "as stock"),
                _number(r["up_s"], 1),
                _number(r["first_answers_s"], 1),
                _number(r["next_answers_s"], 1),
                "–" if same is None else f"{same} of {r['compared']}",
            ]
        )
    headings = ("server", "CUDA graphs", "up, s", "first answers, s", "the same again, s", "answers as stock")
    return "## Starts and answers\n\n" + markdown_table(headings, rows) if rows else ""


def _load(results: Results, pictures: Sequence[str]) -> str:
    rows = [
        [
            f"{row.rate:g}",
            row.policy,
            f"{_number(row.ttft_p50_ms)} / {_number(row.ttft_p99_ms)}",
            _number(row.tpot_p99_ms, 1),
            format_share(row.attainment),
            _number(row.be_tokens_per_s) if row.policy != "rt-alone" else "–",
            "–" if row.of_bound is None else f"{row.of_bound:.0%}",
            _number(row.preemptions),
        ]
        for row in load_rows(results)
    ]
    if not rows:
        return ""
    settings = results.about.get("settings", {})
    text = (
        f"## Mixed load\n\nModel `{settings.get('model')}`, pool of {settings.get('pool_tokens'):,} tokens, "
        f"{settings.get('running')} seats, chunks of {settings.get('chunk_tokens'):,}; "
        f"{_workloads(results)}; {settings.get('seconds'):g} s each; targets "
        f"TTFT {settings.get('ttft_ms'):g} ms, TPOT {settings.get('tpot_ms'):g} ms.\n\n"
    )
    headings = ("RT/s", "policy", "TTFT p50 / p99 ms", "TPOT p99 ms", "within", "BE tokens/s", "of bound",
                "preempted")  # fmt: skip
    text += markdown_table(headings, rows)
    if PICTURES["load"] in pictures:
        text += f"\n\n![Mixed load](images/{PICTURES['load']})"
    return text


def _workloads(results: Results) -> str:
    """Name the loads as they were drawn: a trace's lengths, or a formula's where the trace was not there."""
    names = [name for r in results.stage("load").values() for name in r.get("workloads", ())]
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names)) or "workloads not recorded"


def _overhead(results: Results) -> str:
    rows = [
        [
            policy,
            _number(r["step_ms"], 3),
            _number(r["decide_us"]),
            _number(r["launch_us"]),
            _number(r["process_us"]),
            f"{r['scheduler_share']:.0%}",
        ]
        for policy, r in results.stage("overhead").items()
    ]
    if not rows:
        return ""
    rows_running = next(iter(results.stage("overhead").values()))["rows"]
    headings = (
        "policy",
        "decode step, ms",
        "deciding, µs",
        "launching, µs",
        "results, µs",
        "share of the step",
    )
    text = f"## The scheduler's share of a step, {rows_running} running\n\n" + markdown_table(headings, rows)
    added = step_added(results)
    return text if added is None else f"{text}\n\nbros adds {added:+.1%} to stock's median decode step."


def _waits(results: Results) -> str:
    rows = []
    for policy, r in results.stage("syncs").items():
        deciding = r["deciding"]
        rows.append(
            [
                policy,
                _number(r["profiler"]["waits_per_pass"], 2),
                _number(deciding["decode"]["waits_per_pass"], 3),
                _number(deciding["prefill_or_mixed"]["waits_per_pass"], 3),
            ]
        )
    headings = ("policy", "waits per pass, profiler", "while deciding: decode", "prefill or mixed")
    if not rows:
        return ""
    note = "\n\nOn a CPU nothing waits for a device." if results.dry else ""
    return "## Waits for the device\n\n" + markdown_table(headings, rows) + note


def _memory(results: Results) -> str:
    parts = []
    copies, ceilings = results.of("memory", "copies"), results.of("ceilings", "ceilings")
    if copies is not None:
        peak = None if ceilings is None else ceilings["to_host_gb_per_s"]
        rows = [
            [
                variant,
                _number(copies[variant]["tokens_per_run"], 2),
                _number(copies[variant]["megabytes"], 1),
                _of_peak(copies[variant]["scattered_gb_per_s"], peak),
                _of_peak(copies[variant]["in_runs_gb_per_s"], peak),
            ]
            for variant in ("stock", "bros")
        ]
        headings = ("allocator", "tokens a run", "MB a victim", "scattered, GB/s (of the link)",
                    "in runs, GB/s (of the link)")  # fmt: skip
        parts.append("Copying a best-effort victim's KV to the host:\n\n" + markdown_table(headings, rows))
    operations = results.of("memory", "operations")
    if operations is not None:
        cases: dict[tuple[str, int, int], dict[str, float]] = {}
        for t in operations["timings"]:
            case = cases.setdefault((t["operation"], t["page_size"], t["size"]), {})
            case[t["allocator"]] = t["median_us"]
        rows = [
            [operation, str(page), f"{size:,}", _number(c["bros"], 1), _number(c["stock"], 1),
             _number(c["bros"] / c["stock"], 2)]
            for (operation, page, size), c in cases.items()
        ]  # fmt: skip
        columns = ("operation", "page size", "tokens", "bros, µs", "stock, µs", "ratio")
        parts.append("Allocators and tree on device tensors:\n\n" + markdown_table(columns, rows))
        parts.append(_waiting_operations(operations["waits"]))
    return "## Memory\n\n" + "\n\n".join(parts) if parts else ""


def _waiting_operations(waits: dict[str, Any]) -> str:
    """Say which operations of allocator and tree waited for the device in a churn, stock beside bros."""
    said = []
    for variant, pages in waits.items():
        waited = [
            f"{name} {figures['waits_per_call']:.2f} times a call ({page})"
            for page, operations in pages.items()
            for name, figures in operations.items()
            if figures["waits_per_call"]
        ]
        said.append(f"{variant}: {', '.join(waited) or 'none'}")
    return f"Operations that waited for the device: {'; '.join(said)}."


def _of_peak(value: float, peak: float | None) -> str:
    return _number(value, 1) + (f" ({value / peak:.0%})" if peak else "")


def _hicache(results: Results) -> str:
    rows = []
    for cell, r in results.stage("hicache").items():
        preemption = ((r.get("status") or {}).get("schedulers") or [{}])[0].get("preemption", {})
        rows.append(
            [
                cell,
                r["io_backend"],
                format_share(r["rt"]["attainment"]),
                _number(r["be"]["tokens_per_s"]),
                _number(r["preemptions"]),
                _number(preemption.get("recomputed_tokens_total")),
                _number(preemption.get("loaded_back_tokens_total")),
            ]
        )
    headings = ("server", "copies by", "RT within", "BE tokens/s", "preempted", "recomputed", "loaded back")
    return "## Hierarchical cache, pool too small\n\n" + markdown_table(headings, rows) if rows else ""


def _attention(results: Results) -> str:
    rows = [
        [
            cell,
            f"{_number(r['rt']['ttft_ms']['p50'])} / {_number(r['rt']['ttft_ms']['p99'])}",
            format_share(r["rt"]["attainment"]),
            _number(r["be"]["tokens_per_s"]),
        ]
        for cell, r in results.stage("attention").items()
    ]
    headings = ("back end, page size, policy", "TTFT p50 / p99 ms", "RT within", "BE tokens/s")
    return "## Attention back ends\n\n" + markdown_table(headings, rows) if rows else ""


def _profile(results: Results, pictures: Sequence[str]) -> str:
    fits = results.stage("profile")
    if not fits:
        return ""
    round_numbers = AFFINE.describe()["coefficients"]
    rows = []
    for name, preset in round_numbers.items():
        fitted = [r["model"]["coefficients"].get(name, 0.0) for r in fits.values()]
        if any(fitted):
            rows.append([name, *(f"{value:.2e}" for value in fitted), f"{preset:.2e}"])
    errors = "; ".join(
        f"{policy}: {r['steps']:,} steps, median error {r['error_p50']:.1%}, p95 {r['error_p95']:.1%}"
        for policy, r in fits.items()
    )
    text = "## Step times\n\n" + markdown_table(("seconds", *fits, "affine-llama3-8b-h200"), rows)
    text += f"\n\n{errors}."
    if PICTURES["fit"] in pictures:
        text += f"\n\n![Predicted against measured passes](images/{PICTURES['fit']})"
    return text


def _replay(results: Results) -> str:
    rows = [
        [cell, f["figure"], _number(f["live"], 1), _number(f["replay"], 1), _number(f["ratio"], 2),
         "" if f["within"] else "off"]
        for cell, r in results.stage("replay").items()
        for f in r["figures"]
    ]  # fmt: skip
    headings = ("policy and RT/s", "figure", "live", "replay", "ratio", "")
    return "## Replay against the live run\n\n" + markdown_table(headings, rows) if rows else ""


def _open(results: Results) -> str:
    rows: list[list[Any]] = [
        [f"{r.stage}/{r.cell}", r.status, r.reason.splitlines()[0][:200] if r.reason else ""]
        for r in results.open()
    ]
    return "## Not measured\n\n" + markdown_table(("cell", "", "why"), rows) if rows else ""

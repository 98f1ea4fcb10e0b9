"""Data sets of every kind give the counts that a plain loop over their rows gives."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
import statistics as library
import tracemalloc
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.test_tokens_tokenizer import CORPUS
from workbench.chat import template
from workbench.chat.template import ChatTemplate, render_chats
from workbench.cli.common import decode_utf8
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.tokens import dataset
from workbench.tokens.dataset import MeasuredModel, measure_dataset
from workbench.tokens.statistics import CountCollector, LongRow, histogram, packed_sequences, percentile
from workbench.tokens.tokenizer import load_tokenizer

pytest.importorskip("tokenizers")
SAMPLES = Path(__file__).parents[2] / "sample_models"
TEXTS = [f"Row {index}: {CORPUS[index % 4][: 10 + index * 7 % 60]} ünï 日本" * (1 + index % 5) for index in range(300)]


@pytest.fixture(scope="module")
def models():
    return [MeasuredModel(name, load_tokenizer(str(SAMPLES / name))) for name in ("tiny-gpt2", "tiny-t5")]


@pytest.fixture(scope="module")
def expected(models):
    return {model.name: [len(model.tokenizer.encode(text)) for text in TEXTS] for model in models}


def write(folder: Path, kind: str) -> Path:
    path = folder / f"data.{kind}"
    records = [{"id": index, "text": text} for index, text in enumerate(TEXTS)]
    lines = "\n".join(json.dumps(record, ensure_ascii=index % 2 == 0) for index, record in enumerate(records)) + "\n"
    if kind in ("jsonl", "ndjson"):
        path.write_text("\ufeff" + lines + "\n\n", encoding="utf-8")
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif kind == "lines.json":
        path.write_text(lines, encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(records, indent=1, ensure_ascii=False), encoding="utf-8")
    elif kind == "object.json":
        path.write_text(json.dumps({"version": 1, "data": records}, indent=1), encoding="utf-8")
    elif kind == "strings.json":
        path.write_text(json.dumps(TEXTS), encoding="utf-8")
    elif kind in ("csv", "tsv"):
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter="," if kind == "csv" else "\t")
            writer.writerow(["id", "text"])
            writer.writerows((record["id"], record["text"]) for record in records)
    elif kind in ("parquet", "arrow"):
        arrow = pytest.importorskip("pyarrow")
        table = arrow.Table.from_pylist([{**record, "image": b"\xff" * 100} for record in records])
        if kind == "parquet":
            pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=70)
        else:
            with arrow.ipc.new_stream(path, table.schema) as sink:
                sink.write_table(table)
    return path


KINDS = [
    *("jsonl", "ndjson", "jsonl.gz", "lines.json", "json", "object.json", "strings.json"),
    *("csv", "tsv", "parquet", "arrow"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_counts_of_its_rows(tmp_path, models, expected, kind):
    measured = measure_dataset(str(write(tmp_path, kind)), models)
    assert measured.rows == len(TEXTS)
    assert measured.bytes_done == measured.bytes_total
    assert (measured.bad_rows, measured.missing_rows, measured.partial) == (0, 0, False)
    for found in measured.models:
        counts = expected[found.model]
        assert (found.total, found.rows, found.max) == (sum(counts), len(counts), max(counts))
        assert found.mean == pytest.approx(library.mean(counts))
        ordered = sorted(counts)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
            assert getattr(found, name) == ordered[math.ceil(share * len(ordered)) - 1]
        assert sum(item.rows for item in found.histogram) == len(counts)
        assert [row.tokens for row in found.longest] == ordered[::-1][:10]
        longest = found.longest[0]
        assert longest.preview.startswith("Row ")
        assert not found.error
    json.dumps(asdict(measured))


def test_text_is_a_row_a_line_and_sources_are_a_row_a_file(tmp_path, models):
    (tmp_path / "a.txt").write_text("one line\n\n  \r\nanother line\r\nlast", encoding="utf-8")
    measured = measure_dataset(str(tmp_path / "a.txt"), models)
    assert measured.rows == 3
    assert measured.models[0].total == sum(
        len(models[0].tokenizer.encode(text)) for text in ("one line", "another line", "last")
    )
    (tmp_path / "b.py").write_text("def f():\n    return 1\n", encoding="utf-8")
    (tmp_path / "c.bin").write_bytes(b"\x00\x01")
    both = measure_dataset(str(tmp_path), models)
    assert both.rows == 4
    assert "1 files of other kinds" in both.notes[0]


def test_directories_are_searched_and_tables_win_over_text(tmp_path, models, expected):
    (tmp_path / "train").mkdir()
    write(tmp_path / "train", "jsonl")
    write(tmp_path, "csv")
    (tmp_path / "README.md").write_text("# not a row", encoding="utf-8")
    (tmp_path / "dataset_infos.json").write_text("{}", encoding="utf-8")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "old.jsonl").write_text('{"text": "x"}\n', encoding="utf-8")
    measured = measure_dataset(str(tmp_path), models)
    assert measured.rows == 2 * len(TEXTS)
    assert measured.format == "csv+jsonl"
    assert measured.models[0].total == 2 * sum(expected["tiny-gpt2"])
    assert {row.file for row in measured.models[0].longest} <= {"data.csv", "train/data.jsonl"}


def test_a_data_set_of_the_hub_is_found_in_the_cache(tmp_path, models, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "datasets--someone--things"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    write(folder / "blobs", "jsonl")
    (folder / "snapshots" / "abc" / "train.jsonl").symlink_to("../../blobs/data.jsonl")
    assert measure_dataset("someone/things", models).rows == len(TEXTS)
    with pytest.raises(WorkbenchError) as caught:
        measure_dataset("someone/else", models)
    assert caught.value.kind == "no-dataset"


def measured_lines(tmp_path, models, records, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return measure_dataset(str(path), models, **options)


@pytest.mark.parametrize(
    ("record", "label", "text"),
    [
        ({"text": "a b", "meta": "x", "other": "y"}, "text", "a b"),
        ({"id": "7", "body": "only one"}, "body", "only one"),
        ({"prompt": "Why? ", "completion": "So."}, "prompt + completion", "Why? So."),
        ({"instruction": "Do", "input": "", "output": "done"}, "instruction + input + output", "Do\ndone"),
        ({"question": "q", "answer": "a", "level": 3}, "question + answer", "q\na"),
    ],
)
def test_the_field_is_found(tmp_path, models, record, label, text):
    measured = measured_lines(tmp_path, models, [record] * 3)
    assert measured.field == label
    assert measured.models[0].total == 3 * len(models[0].tokenizer.encode(text))


def test_a_named_field_may_lie_within_another_or_be_several(tmp_path, models):
    records = [{"a": {"b": "inner words"}, "c": "x", "d": "y"}] * 2
    encode = models[0].tokenizer.encode
    assert measured_lines(tmp_path, models, records, field="a.b").models[0].total == 2 * len(encode("inner words"))
    assert measured_lines(tmp_path, models, records, field="c+d").models[0].total == 2 * len(encode("x\ny"))
    for wanted, kind in (("nope", "unknown-field"), (None, "ambiguous-field")):
        with pytest.raises(WorkbenchError) as caught:
            measured_lines(tmp_path, models, [{"c": "x", "d": "y"}], field=wanted)
        assert caught.value.kind == kind
        assert "c, d" in caught.value.remedy


def rendered(messages):
    return "<s>" + "".join(f"<|{message['role']}|>{message['content']}</s>" for message in messages)


def render(conversations):
    refusal = WorkbenchError("template-refused", "The template refuses this.", "Change it.")
    return [refusal if messages[0]["content"] == "refuse me" else rendered(messages) for messages in conversations]


def test_messages_are_rendered_by_each_models_own_template(tmp_path, models):
    conversation = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]
    shared = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello there"}]
    tokenizer = models[0].tokenizer
    both = [MeasuredModel("with", tokenizer, render), MeasuredModel("without", tokenizer)]
    for record in (
        {"messages": conversation},
        {"conversations": shared},
        {"prompt": shared[:1], "completion": shared[1:]},
    ):
        measured = measured_lines(tmp_path, both, [record] * 4, special=True)
        assert measured.models[0].total == 4 * len(tokenizer.encode(rendered(conversation)))
        assert (measured.models[1].rows, measured.models[1].refused_rows) == (0, 4)
        assert "no chat template" in measured.models[1].error
        measured = measured_lines(tmp_path, both, [record] * 4, special=True, contents=True)
        assert measured.models[1].total == 4 * len(tokenizer.encode("Hi\nHello there", True))


def test_a_data_set_that_no_tokenizer_can_count_is_not_read_to_its_end(tmp_path, models):
    rows = [{"messages": [{"role": "user", "content": "Hi"}]}] * 30_000
    measured = measured_lines(tmp_path, [MeasuredModel("without", models[0].tokenizer)], rows)
    assert measured.rows < 30_000
    assert any("stopped early" in note for note in measured.notes)


def test_a_text_in_place_of_messages_is_a_bad_row(tmp_path, models):
    one = [MeasuredModel("m", models[0].tokenizer, render)]
    good, bad = {"messages": [{"role": "user", "content": "Hi"}]}, {"messages": "user: Hi"}
    for rows in ([good, bad, good], [bad, good, good]):
        for field in (None, "messages"):
            measured = measured_lines(tmp_path, one, rows, field=field)
            assert (measured.rows, measured.bad_rows, measured.models[0].rows) == (2, 1, 2)
            assert measured.examples[0].reason == "field 'messages' is no list of messages"
    assert measured_lines(tmp_path, one, [{"conversation": "A: Hi"}] * 2).models[0].rows == 2


def test_refused_conversations_are_counted_and_a_template_that_suits_nothing_is_given_up(tmp_path, models):
    good, bad = ([{"role": "user", "content": content}] for content in ("fine", "refuse me"))
    one = [MeasuredModel("m", models[0].tokenizer, render)]
    measured = measured_lines(tmp_path, one, [{"messages": good}, {"messages": bad}, {"messages": good}])
    assert (measured.rows, measured.models[0].rows, measured.models[0].refused_rows) == (3, 2, 1)
    assert "refuses" in measured.models[0].error
    assert [(row.file, row.row) for row in measured.models[0].refused_examples] == [("rows.jsonl", 2)]
    calls = []
    counting = [MeasuredModel("m", models[0].tokenizer, lambda rows: calls.extend(rows) or render(rows))]
    measured = measured_lines(tmp_path, counting, [{"messages": bad}] * 3000)
    assert measured.models[0].rows == 0
    assert measured.models[0].refused_rows == 3000
    assert len(calls) < 600


def test_a_template_without_end_is_given_up_after_a_few_rows(tmp_path, models, monkeypatch):
    pytest.importorskip("jinja2")
    monkeypatch.setattr("workbench.chat.template.TIMEOUT_SECONDS", 0.2)
    hostile = ChatTemplate("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    tried = []
    exchange = template._renderer._exchange
    monkeypatch.setattr(template._renderer, "_exchange", lambda *args: tried.append(1) or exchange(*args))

    def loop(conversations):
        return render_chats(conversations, hostile, give_up_after=dataset.EXHAUSTIONS_ALLOWED)

    both = [MeasuredModel("hostile", models[0].tokenizer, loop), MeasuredModel("fine", models[0].tokenizer, render)]
    rows = [{"messages": [{"role": "user", "content": f"Hi {index}"}]} for index in range(2500)]
    measured = measured_lines(tmp_path, both, rows)
    assert (measured.models[0].rows, measured.models[0].refused_rows) == (0, 2500)
    assert "given up after 3 rows" in measured.models[0].error
    assert measured.models[1].rows == 2500
    assert len(tried) == 3


def test_a_quote_left_open_does_not_swallow_the_rest_silently(tmp_path, models):
    path = tmp_path / "rows.csv"
    path.write_text('id,text\n1,fine\n2,"left open\n' + "".join(f"{index},more\n" for index in range(3, 900)))
    measured = measure_dataset(str(path), models, field="text")
    assert (measured.rows, measured.bad_rows) == (1, 1)
    assert "not closed" in measured.examples[0].reason
    assert "lines 3 to 900" in measured.notes[0]
    path.write_text('id,text\n1,"left open\n' + "2,more\n" * 700 + '3,"\n4,"two\nlines"\n')
    measured = measure_dataset(str(path), models, field="text")
    assert (measured.rows, measured.bad_rows) == (2, 0)
    assert "row 2 spans 702 lines" in measured.notes[0]
    path.write_text('id,text\n1,"ends well\nhere"')
    assert measure_dataset(str(path), models, field="text").rows == 1


def test_columns_of_one_name_are_told(tmp_path, models):
    path = tmp_path / "rows.csv"
    path.write_text("text,id,text\nfirst,1,second one\n")
    measured = measure_dataset(str(path), models, field="text")
    assert measured.models[0].total == len(models[0].tokenizer.encode("second one"))
    assert "columns 1 and 3" in measured.notes[0]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"data": [{"text": "a"}, {"text": "b"}]}\n', 2),
        ('{"version": 1, "payload": [{"text": "a"}, {"text": "b"}]}', 2),
        ('{"data": {"rows": [{"text": "a"}, {"text": "b"}]}, "tags": ["x"]}', 2),
        ('{"text": "a", "meta": [{"x": 1}]}', 1),
        ('{"text": "a"}\n{"text": "b"}\n', 2),
    ],
)
def test_the_rows_of_one_object_are_found_within_it(tmp_path, models, content, rows):
    (tmp_path / "nested.json").write_text(content)
    assert measure_dataset(str(tmp_path / "nested.json"), models, field="text").rows == rows


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_suspected_and_said(tmp_path, models, encoding):
    data = "Plain words, and an ü too.\n".encode(encoding)
    (tmp_path / "rows.txt").write_bytes(data)
    for read in (lambda: measure_dataset(str(tmp_path / "rows.txt"), models), lambda: decode_utf8(data, "rows.txt")):
        with pytest.raises(WorkbenchError) as caught:
            read()
        assert caught.value.kind == "bad-encoding"
        assert f"iconv -f {encoding} -t utf-8" in caught.value.remedy


def test_broken_rows_are_counted_shown_and_skipped(tmp_path, models):
    path = tmp_path / "rows.jsonl"
    lines = [b'{"text": "good"}', b'{"text": "cut', b'{"other": 1}', b'{"text": 5}', b"[1, 2]", b'{"text": "caf\xe9"}']
    lines += [b'{"text": "half \\ud800 pair"}', b"[" * 200_000, b'{"text": "also good"}']
    path.write_bytes(b"\n".join(lines))
    measured = measure_dataset(str(path), models)
    assert (measured.rows, measured.bad_rows, measured.missing_rows) == (2, 5, 2)
    assert [row.row for row in measured.examples] == [2, 3, 4, 5, 6]
    reasons = [row.reason for row in measured.examples]
    assert "broken JSON" in reasons[0]
    assert reasons[1] == "field 'text' is missing"
    assert reasons[2] == "field 'text' is no text"
    offset = path.read_bytes().index(b"\xe9")
    assert f"byte {offset:,}" in reasons[4]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl", b"", "empty-dataset"),
        ("a.json", b"", "empty-dataset"),
        ("a.json", b"[]", "empty-dataset"),
        ("a.csv", b"", "empty-dataset"),
        ("a.csv", b"text\n", "empty-dataset"),
        ("a.txt", b"\n\n", "empty-dataset"),
        ("a.jsonl", b"\x7fELF\x00\x00", "binary-file"),
        ("a.txt", "text".encode("utf-16"), "bad-encoding"),
        ("a.txt", b"caf\xe9", "bad-dataset"),
        ("a.csv", b"text\ncaf\xe9\n", "bad-encoding"),
        ("a.json", b'[{"text": "x', "bad-dataset"),
        ("a.json", b'{"text": oops\n}', "bad-dataset"),
        ("a.json", b"[" * 100_000, "bad-dataset"),
        ("a.json", b'"just a text"\n', None),
        ("a.jsonl", b"not json\n", "bad-dataset"),
        ("a.jsonl.gz", b"not packed", "unreadable-file"),
        ("a.parquet", b"PAR1 not really", "bad-dataset"),
        ("a.arrow", b"ARROW1 no", "bad-dataset"),
    ],
)
def test_bad_files_give_one_line(tmp_path, models, name, content, kind):
    if name.endswith(("parquet", "arrow")):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content)
    if kind is None:
        assert measure_dataset(str(path), models).rows == 1
        return
    with pytest.raises(WorkbenchError) as caught:
        measure_dataset(str(path), models)
    assert caught.value.kind == kind
    assert "\n" not in caught.value.message
    assert path.name in caught.value.message


def test_a_file_broken_in_the_middle_keeps_what_was_counted_and_says_so(tmp_path, models):
    (tmp_path / "a.json").write_text('[{"text": "one"}, {"text": "two"}, {oops}, {"text": "three"}]', encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "four"}\n', encoding="utf-8")
    measured = measure_dataset(str(tmp_path), models)
    assert measured.rows == 3
    assert "broken JSON at character 36" in measured.notes[0]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, models, monkeypatch):
    path = write(tmp_path, "parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(WorkbenchError) as caught:
        measure_dataset(str(path), models)
    assert caught.value.kind == "missing-package"
    assert caught.value.remedy.endswith("-m pip install pyarrow")


def test_items_of_an_array_may_lie_across_chunks(tmp_path, models, monkeypatch, expected):
    monkeypatch.setattr("workbench.tokens.rows._CHUNK_CHARACTERS", 7)
    records = [{"text": text, "n": [1.5e3, -1, None, True]} for text in TEXTS[:40]]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    assert measure_dataset(str(path), models).models[0].total == sum(expected["tiny-gpt2"][:40])


class StopsAfter(Job):
    def __init__(self, rows):
        self.left = rows
        self.seen = []

    def progress(self, phase, done, total=None, unit="", detail=""):
        self.seen.append((phase, done, total, unit, detail))

    def check(self):
        self.left -= 1
        if self.left < 0:
            raise JobCancelled


def test_cancelling_keeps_what_was_counted(tmp_path, models, monkeypatch):
    monkeypatch.setattr(dataset, "_BATCH_ROWS", 10)
    path = write(tmp_path, "jsonl")
    job = StopsAfter(250)
    measured = measure_dataset(str(path), models, job=job)
    assert measured.partial
    assert 0 < measured.rows < len(TEXTS)
    counts = [len(models[0].tokenizer.encode(text)) for text in TEXTS[: measured.rows]]
    assert measured.models[0].total == sum(counts)
    assert 0 < measured.bytes_done < measured.bytes_total
    assert job.seen[-1][2:4] == (path.stat().st_size, "bytes")
    assert job.seen[-1][4].endswith("rows")
    nothing = measure_dataset(str(path), models, job=StopsAfter(0))
    assert nothing.partial
    assert (nothing.rows, nothing.models) == (0, [])


def test_updates_come_on_the_way(tmp_path, models, monkeypatch):
    monkeypatch.setattr(dataset, "_BATCH_ROWS", 10)
    updates = []
    measure_dataset(str(write(tmp_path, "jsonl")), models, on_update=updates.append, update_seconds=0.0)
    rows = [update.rows for update in updates]
    assert rows == sorted(rows)
    assert len(rows) > 10
    assert updates[3].models[0].p50 > 0


def test_memory_stays_flat(tmp_path, models):
    path = tmp_path / "long.jsonl"
    line = json.dumps({"text": "some words and more of them " * 20}) + "\n"
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(20_000):
            stream.write(line)
    tracemalloc.start()
    try:
        measure_dataset(str(path), models[:1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size * 0.7


def test_a_single_line_of_ten_megabytes(tmp_path, models):
    words = "The quick brown fox jumps over 12 lazy dogs. "
    times = 10_000_000 // len(words)
    path = tmp_path / "a.txt"
    path.write_text(words * times, encoding="utf-8")
    measured = measure_dataset(str(path), models[:1])
    encode = models[0].tokenizer.encode
    each = len(encode(words * 3)) - len(encode(words * 2))
    assert measured.models[0].total == len(encode(words * 2)) + each * (times - 2)
    assert measured.models[0].lengths[0].truncated_share == 1.0
    assert len(measured.models[0].longest[0].preview) <= 160


def test_lengths_are_what_a_loop_over_rows_gives():
    rng = random.Random(3)
    counts = [int(rng.lognormvariate(6, 1)) for _ in range(3000)]
    collector = CountCollector(batch_size=8)
    for number, tokens in enumerate(counts):
        if collector.add(tokens):
            collector.keep(LongRow(number, "f", tokens, ""))
    figures = collector.statistics([512, 2048])
    assert [row.tokens for row in figures.longest] == sorted(counts, reverse=True)[:10]
    for found in figures.lengths:
        cut = [min(tokens, found.length) for tokens in counts]
        batches = [cut[index : index + 8] for index in range(0, len(cut), 8)]
        padded = sum(max(batch) * len(batch) for batch in batches)
        assert found.truncated_share == sum(tokens > found.length for tokens in counts) / len(counts)
        assert found.lost_tokens == sum(counts) - sum(cut)
        assert found.padding_share == pytest.approx(1 - sum(cut) / (found.length * len(cut)))
        assert found.batch_padding_share == pytest.approx(1 - sum(cut) / padded)
        assert found.tokens_per_epoch == sum(cut)
        bins: list[int] = []
        for tokens in sorted(cut, reverse=True):
            fitting = [index for index, room in enumerate(bins) if room >= tokens]
            if fitting:
                bins[min(fitting, key=lambda index: bins[index])] -= tokens
            else:
                bins.append(found.length - tokens)
        assert found.packed_sequences == len(bins)
        assert found.packing_efficiency == pytest.approx(sum(cut) / (len(bins) * found.length))
        assert found.concatenated_sequences == math.ceil(sum(counts) / found.length)


def test_packing_of_very_many_rows_is_scaled_from_a_sample():
    assert packed_sequences({100: 1_000_000}, 1000) == 100_000
    assert packed_sequences({0: 5, 1000: 7, 2000: 3}, 1000) == 10
    assert packed_sequences({600: 500_000, 400: 500_000}, 1000) == pytest.approx(500_000, rel=0.01)


def test_percentiles_and_histogram_at_their_edges():
    assert percentile({}, 0.5) == 0
    assert percentile({7: 1}, 0.01) == 7
    assert percentile(dict.fromkeys(range(1, 21), 1), 0.95) == 19
    assert histogram({}) == []
    assert [(item.low, item.high, item.rows) for item in histogram({0: 4})] == [(0, 0, 4)]
    bins = histogram(dict.fromkeys(range(3000), 1) | {10**6: 1})
    assert 20 <= len(bins) <= 62
    assert bins[-1].high == 10**6
    assert sum(item.rows for item in bins) == 3001
    assert all(one.high + 1 == two.low for one, two in pairwise(bins))

"""The search for options: the parameter file, what is refused, resumption, the files written."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import shlex
import shutil
import statistics
import sys
import types
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.values import parse_overrides, parse_value
from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.experiment.store.launch import OneAfterAnother
from recbole_bbqrec.experiment.store.store import Run, RunStore
from recbole_bbqrec.experiment.tune.best import value_text
from recbole_bbqrec.experiment.tune.search_space import grid, read_space
from recbole_bbqrec.experiment.tune.tune import Search, Trial
from recbole_bbqrec.run_files.names import CONFIG, PLAN, RESULT

ROOT = Path(__file__).resolve().parents[2]


# the parameter file ---------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path):
    def use(text):
        path = tmp_path / "space.test"
        path.write_text(text)
        return path

    return use


RECBOLES = """\
learning_rate loguniform -8,0
dropout_prob uniform 0.0, 0.5
embedding_size choice [64, 96, 128]
mlp_hidden_size choice ['[64,64]','[128]']
"""


def test_recboles_files_give_recboles_space(write, monkeypatch):
    """The same parameters and bounds as RecBole's own reader makes of the file."""
    from recbole.trainer.hyper_tuning import HyperTuning

    # RecBole's reader calls hp.uniform(name, low, high): record the call in place of hyperopt.
    hp = type("hp", (), {"__getattr__": lambda self, kind: lambda name, *values: (kind, *values)})
    hyperopt = types.ModuleType("hyperopt")
    hyperopt.hp = hp()
    monkeypatch.setitem(sys.modules, "hyperopt", hyperopt)
    path = write(RECBOLES + "n_layers quniform 1,4,1\n")
    space = read_space(path)
    theirs = HyperTuning._build_space_from_file(str(path))
    assert [parameter.name for parameter in space] == list(theirs)
    for parameter in space:
        kind, *values = theirs[parameter.name]
        assert parameter.kind == kind
        if kind != "choice":
            assert list(parameter.values) == values
    assert grid(space[2:4]) == [
        {"embedding_size": a, "mlp_hidden_size": b}
        for a, b in itertools.product([64, 96, 128], [[64, 64], [128]])
    ]


def test_values_drawn(write):
    optuna = pytest.importorskip("optuna", reason="draws from optuna's distributions")
    space = read_space(
        write(
            "a loguniform -8 -2  # spaces do as well\n\nb quniform 64,256,64\n"
            "c choice [None,[1]]\nd uniform 0.25 0.5\ne quniform 0.1,0.4,0.1\n"
        )
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    distributions = {parameter.name: parameter.distribution() for parameter in space}
    drawn = []
    for _ in range(200):
        params = study.ask(distributions).params
        drawn.append(
            {parameter.name: parameter.value(params[parameter.name]) for parameter in space}
        )
    logarithms = [math.log(d["a"]) for d in drawn]
    assert all(-8.00001 <= logarithm <= -1.99999 for logarithm in logarithms)
    assert sum(logarithm < -5 for logarithm in logarithms) == pytest.approx(100, abs=25)  # even
    assert {d["b"] for d in drawn} == {64, 128, 192, 256}
    assert all(type(d["b"]) is int for d in drawn)
    assert {str(d["c"]) for d in drawn} == {"None", "[1]"}
    assert all(0.25 <= d["d"] <= 0.5 for d in drawn)
    assert {d["e"] for d in drawn} == {0.1, 0.2, 0.3, 0.4}
    assert all(d == yaml.safe_load(yaml.safe_dump(d)) for d in drawn)
    assert space[1].extremes == [64, 256]
    assert read_space(write("a quniform 60,100,30"))[0].grid == [60, 90]
    assert read_space(write("a quniform 64,100,30"))[0].grid == [90]  # none outside the bounds
    assert space[1].grid == [64, 128, 192, 256] and space[4].grid == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no parameter"]),
        ("a choice", ["line 1", "name type values"]),
        ("# fine\na normal 0,1", ["line 2", "normal", "loguniform"]),
        ("a choice 3", ["list"]),
        ("a choice []", ["list"]),
        ("a uniform __import__('os'),1", ["low,high"]),
        ("a uniform 1", ["low,high"]),
        ("a uniform 2,1", ["low < high"]),
        ("a quniform 1,2,0", ["step"]),
        ("a quniform 1,10,100", ["no multiple of 100"]),
        ("a quniform 0,30000000,1", ["1,000,000"]),
        ("a quniform 0,1,1e-320", ["1,000,000"]),
        ("a quniform 1e308,1.5e308,1", ["1,000,000"]),
        ("a loguniform -900,-800", ["exponents"]),
        ("a choice [...]", ["Ellipsis", "numbers"]),
        ("a choice [b'x']", ["b'x'"]),
        ("a loguniform -1,1e999", ["exponents"]),
        ("a loguniform -4,-2x", ["exponents", "-4,-2x"]),
        ("a uniform 0,\x001", ["low,high"]),
        ("a loguniform -1,1000", ["exponents"]),
        ("a choice [1]\na choice [2]", ["line 2", "twice"]),
    ],
)
def test_bad_lines(write, text, words):
    with pytest.raises(UserError) as error:
        read_space(write(text))
    assert all(word in str(error.value) for word in ["space.test", *words])


def test_code_is_text(write, rundir):
    """RecBole would run this line."""
    code = "__import__('pathlib').Path('made').touch()"
    (parameter,) = read_space(write(f"a choice [{code}]"))
    assert parameter.values == (code,) and not Path("made").exists()


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.test"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UserError):
        assert read_space(path)


def test_endless_space_has_no_grid(write):
    with pytest.raises(UserError, match="`a` is uniform"):
        grid(read_space(write("b choice [1]\na uniform 0,1")))


# the search -----------------------------------------------------------------------------------


@pytest.fixture
def fake_runs(rundir, monkeypatch):
    """Runs that end at once: validation is best at learning_rate 0.01 and hidden_size 32.

    Returns the configurations of the runs made.
    """
    made = []

    def process(self, directory, stop):
        options = yaml.safe_load((directory / CONFIG).read_text())
        plan = json.loads((directory / PLAN).read_text())
        assert plan["test"] is False
        made.append(options)
        if options["hidden_size"] == 8:
            return 1
        score = (
            1 - abs(math.log(options["learning_rate"] / 0.01)) - abs(options["hidden_size"] - 32)
        )
        result = {"best_valid_score": score, "best_valid_result": {"ndcg@10": score},
                  "test_result": {}}  # fmt: skip
        (directory / RESULT).write_text(json.dumps(result))
        return 0

    monkeypatch.setattr(OneAfterAnother, "_process", process)
    return made


def command(space, *extra, model="GRU4Rec"):
    return [
        "tune", f"--model={model}", "--dataset=Mini", f"--params={space}", *extra,
        f"--data_path={ROOT / 'dataset'}", "--epochs=3",
    ]  # fmt: skip


def trials(folder="tuning/GRU4Rec-Mini"):
    with open(Path(folder) / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_exhaustive(fake_runs, write, capsys):
    space = write("hidden_size choice [16,32,8]\nlearning_rate choice [0.01,0.1]\n")
    assert main(command(space)) == 1  # hidden_size 8 fails
    rows = trials()
    assert [(int(r["hidden_size"]), float(r["learning_rate"])) for r in rows] == list(
        itertools.product([16, 32, 8], [0.01, 0.1])
    )
    assert [bool(row["error"]) for row in rows] == [False] * 4 + [True] * 2
    best = Path("tuning/GRU4Rec-Mini/best.yaml")
    # The epochs of the search, given on the command line, are not for the final run.
    assert yaml.safe_load(best.read_text()) == {"hidden_size": 32, "learning_rate": 0.01}
    assert "add --epochs=3 to repeat" in best.read_text()
    output = capsys.readouterr().out
    assert "best of 6 trials (2 failed): hidden_size 32, learning_rate 0.01" in output
    assert f"--config_files={best}" in output
    assert "add --epochs=3 to repeat" in output
    assert "--epochs" not in output.partition("Test it: ")[2].split("\n")[0]
    assert "test" not in best.read_text().replace(str(ROOT), "")

    fake_runs.clear()
    assert main(command(space)) == 1
    assert [options["hidden_size"] for options in fake_runs] == [8, 8]  # the failed ones only
    capsys.readouterr()
    assert main(command(space, "--trials=3")) == 0
    assert len(trials()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["tuning/GRU4Rec-Mini", "my tuning/it's best"])
def test_the_printed_command_repeats_the_best_trial(fake_runs, write, capsys, rundir, folder):
    """Options that are not in best.yaml stand beside it; blanks and quotes survive the shell."""
    data = "own data/in 'quotes'"
    shutil.copytree(ROOT / "dataset" / "Mini", Path(data) / "Mini")
    space = write("hidden_size choice [16,32]\n")
    given = ["--seed=7", "--num_threads=1", "--topk=[3, 5]", "--valid_metric=NDCG@5"]
    kept = [w for w in command(space, f"--output={folder}") if not w.startswith("--data_path")]
    arguments = [*kept, *given, f"--data_path={data}"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out.partition("Test it: ")[2].split("\n")[0]
    text = (Path(folder) / "best.yaml").read_text()
    assert f"# {printed}\n" in text
    python, _, _, verb, *words = shlex.split(printed)
    assert (python, verb) == ("python", "run")
    values = parse_overrides(words)
    model, dataset = values.pop("model"), values.pop("dataset")
    files = values.pop("config_files", "").split()  # as `run` reads it
    config = BBQRecConfig(model, dataset, files, {**values, "epochs": 3})  # as the note says
    (best,) = (options for options in fake_runs if options["hidden_size"] == 32)
    best["data_path"] = data  # a run of the store knows the whole path
    assert config.resolved == best
    assert bool(files) == (" " not in folder)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["random", "bayes"])
def test_sampled_searches_go_on_where_they_stopped(fake_runs, write, algorithm, monkeypatch):
    pytest.importorskip("optuna", reason="random and bayes use optuna")
    space = write("learning_rate loguniform -8,-2\nhidden_size choice [16,32]\n")
    original = OneAfterAnother._process

    def interrupted(self, directory, stop):
        if len(fake_runs) == 4:
            raise KeyboardInterrupt
        return original(self, directory, stop)

    monkeypatch.setattr(OneAfterAnother, "_process", interrupted)
    assert main(command(space, f"--algo={algorithm}", "--trials=8")) == 130
    first = [row["learning_rate"] for row in trials()]
    assert len(first) == 4
    monkeypatch.setattr(OneAfterAnother, "_process", original)
    assert main(command(space, f"--algo={algorithm}", "--trials=8")) == 0
    rows = trials()
    assert len(fake_runs) == len(rows) == 8
    assert [row["learning_rate"] for row in rows][:4] == first
    assert main(command(space, f"--algo={algorithm}", "--trials=8")) == 0  # all found again
    assert len(fake_runs) == 8 and trials() == rows
    assert len({row["learning_rate"] for row in rows}) == 8
    best = max(rows, key=lambda row: float(row["score"]))
    chosen = yaml.safe_load(Path("tuning/GRU4Rec-Mini/best.yaml").read_text())
    assert chosen["learning_rate"] == float(best["learning_rate"])


@pytest.mark.slow
def test_values_that_do_not_go_together_cost_one_trial(fake_runs, write):
    space = write("hidden_size choice [30,32]\nn_heads choice [4]\n")
    assert main(command(space, model="TIGER")) == 1
    refused, done = trials("tuning/TIGER-Mini")
    assert "n_heads" in refused["error"] and not refused["run"] and done["score"]
    assert len(fake_runs) == 1


@pytest.mark.parametrize(
    ("model", "text", "extra", "words"),
    [
        ("GRU5Rec", "epochs choice [1]", [], ["GRU4Rec"]),
        ("GRU4Rec", "hiden_size choice [1]", [], ["hiden_size", "`hidden_size`"]),
        ("TIGER", "n_layers choice [1,2]", [], ["n_layers", "TIGER", "`encoder_layers`"]),
        ("TIGER", "enable_amp choice [True,False]", [], ["enable_amp", "`precision`"]),
        ("GRU4Rec", "learning_rate choice [0.1,0]", [], ["learning_rate", "0"]),
        ("TIGER", "dropout uniform 0,1", [], ["dropout", "[0, 1)"]),
        ("GRU4Rec", "valid_metric choice ['NDCG@5']", [], ["valid_metric", "measured"]),
        ("GRU4Rec", "protocol choice ['next_day']", [], ["protocol", "measured"]),
        ("GRU4Rec", "learning_rate uniform 0.1,0.2", [], ["exhaustive", "random"]),
        ("GRU4Rec", "epochs choice [1]", ["--trials=0"], ["--trials"]),
        ("GRU4Rec", "epochs choice [1]", ["--fixed_tokenizer"], ["no phase one"]),
        ("GRU4Rec", "hidden_size choice [8]", [], ["No trial"]),
    ],
)
def test_refusals(fake_runs, write, capsys, model, text, extra, words):
    space = write(text)
    if "exhaustive" in words:
        words = ["uniform", "--algo random"]
    assert main(command(space, *extra, model=model)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and all(word in error for word in words), error
    assert not fake_runs or "No trial" in words


def test_options_that_the_model_does_not_read_are_refused(fake_runs, write, capsys, tmp_path):
    """Each value would be trained anew, to the same numbers."""
    space = write("n_heads choice [1,2]\n")
    (tmp_path / "for-all.yaml").write_text("n_heads: 4\n")  # a file may hold them
    for extra in ([], [f"--config_files={tmp_path / 'for-all.yaml'}"]):
        assert main(command(space, *extra)) == 2
        assert "`n_heads` is not read by model GRU4Rec" in capsys.readouterr().err
    space = write("hidden_size choice [16]\n")
    assert main([*command(space), "--n_heads=4"]) == 2
    assert "`n_heads` is not read by model GRU4Rec" in capsys.readouterr().err
    assert not fake_runs


def test_phase_one_options_are_refused_on_fixed_semantic_ids(fake_runs, write, capsys, tmp_path):
    space = write("codebook_size choice [64]\n")
    (tmp_path / "ids").write_bytes(b"x")
    arguments = [*command(space, model="TIGER"), f"--tokenizer_path={tmp_path / 'ids'}"]
    assert main(arguments) == 2
    assert "codebook_size" in capsys.readouterr().err


def test_bayes_learns_from_the_scores(write, tmp_path):
    pytest.importorskip("optuna", reason="bayes uses optuna")
    space = read_space(write("learning_rate loguniform -12,0\n"))
    base = Run("GRU4Rec", "Mini", {"data_path": str(ROOT / "dataset")})

    class Distance(Search):
        """Scores a trial by how near to 0.01 its learning rate is, without a run."""

        def _try_all(self, points, total, tell, early):
            for number, (values, asked) in enumerate(points, start=1):
                score = -abs(math.log(values["learning_rate"] / 0.01))
                outcome = types.SimpleNamespace(result={"best_valid_score": score})
                self.trials.append(Trial(number, values, outcome, None))
                tell(self.trials[-1], asked)

    def late_mean(algorithm):
        trials = Distance(RunStore(tmp_path), base, space).run(algorithm, 60)
        return statistics.mean(trial.score for trial in trials[30:])

    assert late_mean("bayes") > late_mean("random") / 2


def test_failed_trials_do_not_end_a_sampled_search(fake_runs, write):
    pytest.importorskip("optuna", reason="bayes uses optuna")
    space = write("hidden_size choice [8,16]\nlearning_rate loguniform -8,-2\n")
    assert main(command(space, "--algo=bayes", "--trials=15")) == 1
    rows = trials()
    assert len(rows) == 15 and 0 < sum(bool(row["error"]) for row in rows) < 15


def test_epochs_of_a_file_or_of_the_search_space_are_in_the_best_options(fake_runs, write):
    file = Path("mine.yaml")
    file.write_text("epochs: 7\nstopping_step: 2\n")
    space = write("hidden_size choice [16,32]\n")
    assert main(command(space, f"--config_files={file}", "--output=a")) == 0
    found = yaml.safe_load(Path("a/best.yaml").read_text())
    assert found == {"hidden_size": 32, "epochs": 7, "stopping_step": 2}
    space = write("epochs choice [2,3]\n")
    assert main(command(space, "--output=b")) == 0
    assert yaml.safe_load(Path("b/best.yaml").read_text())["epochs"] in (2, 3)


def test_best_options_of_another_search_are_kept(fake_runs, write, capsys):
    first = ["hidden_size choice [16,32]"]
    assert main(command(write(first[0]), "--output=out")) == 0
    best = Path("out/best.yaml")
    before = best.read_text()
    made = len(fake_runs)
    others = [
        command(write("hidden_size choice [16]"), "--output=out"),
        command(write(first[0]), "--output=out", model="SASRec"),
    ]
    for space, other in zip(["hidden_size choice [16]", *first], others):
        write(space)
        capsys.readouterr()
        assert main(other) == 2
        error = capsys.readouterr().err
        assert "out/best.yaml" in error and "GRU4Rec on Mini, hidden_size choice [16, 32]" in error
    assert best.read_text() == before and len(fake_runs) == made
    for other in ("--seed=9", "--epochs=4", "--learning_rate=0.1"):  # other options, other search
        words = [w for w in command(write(first[0]), "--output=out") if w[:8] != other[:8]]
        assert main([*words, other]) == 2
        assert best.read_text() == before
    # One trial of the same search is not the best of two.
    assert main(command(write(first[0]), "--output=out", "--trials=1")) == 0
    assert best.read_text() == before and "is kept" in capsys.readouterr().out
    best.write_text("hidden_size: 99\n")
    assert main(command(write(first[0]), "--output=out")) == 2
    assert "unknown" in capsys.readouterr().err and best.read_text() == "hidden_size: 99\n"


def test_without_optuna(fake_runs, write, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    space = write("learning_rate choice [0.01]\n")
    assert main(command(space, "--algo=random")) == 2
    assert pip_install("tune") in capsys.readouterr().err
    assert main(command(space)) == 0


def test_tune_on_a_fixed_tokenizer_for_real(rundir, write, tiny, capsys):
    """Phase one is trained once, in its own run; the trial's phase two starts from its IDs."""
    space = write("num_beams choice [20]\n")
    options = {
        k: str(v).replace(" ", "") for k, v in tiny.items() if k not in ("data_path", "state")
    }
    options.update(epochs=1, tokenizer_epochs=2, num_threads=1)
    settings = [f"--{key}={value}" for key, value in options.items()]
    arguments = [*command(space, "--fixed_tokenizer", model="TIGER")[:-1], *settings]
    assert main(arguments) == 0, capsys.readouterr().out
    (row,) = trials("tuning/TIGER-Mini")
    result = json.loads((Path(row["run"]) / RESULT).read_text())
    assert result["test_result"] == {} and "per_user" not in result["files"]
    assert float(row["score"]) == result["best_valid_score"] >= 0
    log = (Path(row["run"]) / "run.log").read_text()
    assert "using the semantic IDs in" in log and "tokenize epoch" not in log
    assert len(list(Path("runs/Mini/TIGER").iterdir())) == 2
    chosen = yaml.safe_load(Path("tuning/TIGER-Mini/best.yaml").read_text())
    assert chosen["num_beams"] == 20 and "tokenizer_path" not in chosen


@pytest.mark.parametrize(
    "value", [float("inf"), -float("inf"), 1e-7, 3, "inf", "[5,inf)", "1", "", None, True, [1, "a"]]
)
def test_values_are_printed_as_they_are_read(value):
    assert parse_value(value_text(value)) == value

from mmtool.cli.output import Output
from mmtool.cli.watcher import RunWatcher, TrainDisplay


def step(number, loss=0.5, **more):
    return {"k": "step", "step": number, "epoch": number // 10, "n": 32, "loss": loss, **more}


def test_training_is_drawn_from_its_events(capsys):
    display = TrainDisplay(Output(environ={}), "demo")
    display({"k": "head", "epochs": 2, "steps_per_epoch": 10})
    for number in range(20):
        display(step(number, ms={"step": 16.0}))
    display({"k": "epoch", "epoch": 1, "split": "val", "acc": 0.75, "step": 20})
    display(step(19, ms={"step": 16.0}))
    display.close()

    first, last = capsys.readouterr().err.splitlines()
    assert first == "demo: started, 20 to do"
    assert last.startswith("demo 20/20  epoch 2/2  loss 0.5000  2,000 clips/s  val acc 0.750: done")


def test_a_warning_event_is_shown_and_a_non_finite_loss_is_named(capsys):
    display = TrainDisplay(Output(environ={}), "demo")
    display({"k": "head", "epochs": 1, "steps_per_epoch": 4})
    display(step(0, loss=None))
    display({"k": "event", "what": "warning", "message": "adam cancels scaling"})
    display({"k": "event", "what": "nonfinite", "step": 7})
    display.close()

    text = capsys.readouterr().err
    assert "warning: adam cancels scaling\n" in text
    assert "warning: nonfinite at step 7\n" in text
    assert "loss not finite" in text


def test_events_of_unknown_kinds_are_passed_over(capsys):
    display = TrainDisplay(Output(environ={}), "demo")

    display({"k": "from the future"})
    display(step(0))
    display.close()

    assert capsys.readouterr().err == ""


def epoch(number, split, accuracy):
    return {"k": "epoch", "epoch": number, "split": split, "acc": accuracy, "step": number}


def test_the_run_is_named_once_and_errors_know_its_directory(tmp_path, capsys):
    output = Output(environ={})
    with RunWatcher(output, "demo", tmp_path) as watcher:
        watcher({"k": "head", "run": "r1", "epochs": 1, "steps_per_epoch": 2})
        watcher({"k": "head", "run": "r1", "epochs": 1, "steps_per_epoch": 2})

    assert watcher.run_path == output.run_path == tmp_path / "r1"
    assert capsys.readouterr().err.count(f"run: {tmp_path / 'r1'}") == 1


def test_the_accuracy_on_val_is_that_of_the_weights_tested(tmp_path):
    with RunWatcher(Output(quiet=True, environ={}), "demo", tmp_path) as watcher:
        for number, accuracy in enumerate([0.5, 0.9, 0.7]):
            watcher(epoch(number, "train", 1.0))
            watcher(epoch(number, "val", accuracy))
        latest = dict(watcher.accuracy)
        watcher(epoch(1, "test", 0.8))

    assert latest == {"val": 0.7}
    assert watcher.accuracy == {"val": 0.9, "test": 0.8}


def test_a_score_that_is_no_accuracy_is_shown_under_its_own_name(tmp_path, capsys):
    with RunWatcher(Output(verbose=True, environ={}), "demo", tmp_path) as watcher:
        watcher({"k": "head", "run": "r1", "epochs": 1, "steps_per_epoch": 2})
        watcher({**epoch(0, "val", -0.25), "metric": "r2"})

    assert watcher.metric == "r2"
    assert watcher.accuracy == {"val": -0.25}
    assert "epoch 1 val: R^2 -0.2500" in capsys.readouterr().err


def test_after_a_resume_the_remaining_time_counts_from_there(capsys):
    display = TrainDisplay(Output(environ={}), "demo")
    display({"k": "head", "epochs": 2, "steps_per_epoch": 10})
    display({"k": "event", "what": "resume", "step": 15})
    display.close()

    assert "demo 15/20: done" in capsys.readouterr().err


def test_epochs_that_a_method_makes_longer_count_in_what_is_left(capsys):
    display = TrainDisplay(Output(environ={}), "demo")
    display({"k": "head", "epochs": 4, "steps_per_epoch": 10})
    display({"k": "step", "step": 14, "epoch": 0, "loss": 0.5})
    display({"k": "epoch", "step": 15, "epoch": 0, "split": "val", "acc": 0.9})
    display({"k": "epoch", "step": 45, "epoch": 2, "split": "val", "acc": 0.9})
    display({"k": "epoch", "step": 59, "epoch": 3, "split": "val", "acc": 0.9})
    display({"k": "epoch", "step": 59, "epoch": 0, "split": "test", "acc": 0.9})
    display.close()

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "demo: started, 40 to do"
    assert lines[-1].startswith("demo 59/59  epoch 1/4  loss 0.5000: done")

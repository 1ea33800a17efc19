"""Which test injects which of the faults that a run has to survive, and those without a home.

Rows are numbered as in the fault matrix of the engine's design.
"""

import ast
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ENGINE = Path(__file__).parent
LAUNCH, TRAINING = "test_faults_launch.py", "test_faults_training.py"
RESUME, HERE = "test_faults_resume.py", "test_faults_matrix.py"
CHECKPOINT, SHARDED = "test_checkpoint.py", "test_checkpoint_sharded.py"
SLURM, SYNC, WATCHDOG = "test_slurm.py", "test_sync.py", "test_watchdog.py"
PIPELINE, LOADER = "../prepare/test_pipeline.py", "../data/test_loader.py"

STOP = "test_a_stop_saves_everything_and_resumes"
SKIP = "test_with_skip_all_ranks_leave_the_step_out_and_go_on"
HARMED = "test_a_harmed_checkpoint_is_refused_and_the_previous_one_taken"
DRIFT = "test_ranks_that_drift_apart_are_a_bug_with_its_own_code"
CUT_SHORT = "test_a_file_cut_short_under_a_running_job_is_named_with_its_samples"
METHOD_STATE = "test_the_state_of_a_method_survives_a_kill"

TESTS = {
    # a rank is killed: restarted, or resumed by hand; killed in the middle of a save
    1: {LAUNCH: ["test_a_killed_rank_is_restarted_to_the_same_weights"]},
    2: {LAUNCH: ["test_a_killed_rank_is_named_and_the_run_resumes"]},
    3: {LAUNCH: ["test_a_kill_during_a_save_leaves_the_previous_one"]},
    # a rank hangs, raises, exits
    4: {
        LAUNCH: ["test_a_rank_that_hangs_is_named_and_restarted"],
        WATCHDOG: ["test_a_single_process_that_hangs_says_where_and_ends_like_a_rank"],
    },
    5: {
        LAUNCH: ["test_an_error_of_the_program_is_shown_and_not_restarted"],
        WATCHDOG: ["test_an_error_of_the_program_has_the_same_code_on_any_number_of_ranks"],
    },
    6: {LAUNCH: ["test_the_exit_code_of_a_rank_is_that_of_the_command"]},
    # signals: TERM to the launcher, to one rank; Ctrl-C once, twice; KILL of the launcher
    7: {LAUNCH: [STOP]},
    8: {LAUNCH: [STOP]},
    9: {
        LAUNCH: [STOP, "test_a_second_ctrl_c_kills_at_once"],
        WATCHDOG: ["test_a_second_ctrl_c_ends_a_single_process_as_failed"],
    },
    10: {LAUNCH: ["test_a_killed_launcher_leaves_no_rank_and_no_lock"]},
    11: {LAUNCH: ["test_a_warning_while_torch_is_loading_stops_the_run_cleanly"]},
    12: {LAUNCH: [STOP]},
    # SLURM: preemption, time limit
    13: {SLURM: ["test_a_preempted_job_saves_queues_again_and_ends_the_same"]},
    14: {
        SLURM: [
            "test_a_warned_job_saves_queues_again_and_ends_the_same",
            "test_a_time_limit_that_leaves_no_room_is_not_a_storm_of_requeues",
        ]
    },
    # not finite, out of memory
    15: {
        TRAINING: [
            "test_a_step_that_is_not_finite_stops_the_run_and_is_explained",
            SKIP,
            "test_too_many_skipped_steps_in_a_row_stop_the_run",
        ]
    },
    16: {
        TRAINING: [
            "test_a_rank_without_memory_makes_all_repeat_the_batch_in_halves",
            "test_without_halving_the_run_stops_with_advice",
        ]
    },
    # checkpoints: truncated, a bit flipped, all bad; disk full; no directory; a hostile pickle
    17: {CHECKPOINT: [HARMED]},
    18: {CHECKPOINT: [HARMED]},
    19: {TRAINING: ["test_with_all_checkpoints_bad_a_resume_ends_with_65"]},
    20: {
        TRAINING: ["test_a_disk_that_takes_no_checkpoint_ends_the_run_with_74"],
        "test_room.py": ["test_a_full_disk_ends_a_run_with_74_before_its_first_step"],
    },
    21: {LAUNCH: ["test_a_run_directory_that_cannot_be_written_is_refused_first"]},
    22: {CHECKPOINT: [HARMED], SHARDED: ["test_metadata_that_would_run_code_is_refused"]},
    # resumed on other ranks, other threads; killed with a method that has state, freezes
    23: {
        SYNC: ["test_a_run_continues_on_another_number_of_ranks"],
        RESUME: ["test_every_sample_is_visited_once_an_epoch_over_ranks_and_restarts"],
        HERE: ["test_a_killed_run_is_finished_by_other_ranks_and_threads"],
    },
    24: {
        RESUME: ["test_the_number_of_loader_threads_does_not_matter"],
        HERE: ["test_a_killed_run_is_finished_by_other_ranks_and_threads"],
    },
    25: {RESUME: ["test_a_stopped_run_continues_bit_for_bit"], HERE: [METHOD_STATE]},
    26: {RESUME: ["test_a_stopped_run_continues_bit_for_bit"], HERE: [METHOD_STATE]},
    27: {TRAINING: ["test_an_edited_recipe_is_refused_with_what_changed"]},
    # ranks that differ, in a weight or in the order of collectives
    28: {TRAINING: [DRIFT]},
    29: {TRAINING: [DRIFT]},
    # two launchers, two runs
    30: {LAUNCH: ["test_a_run_is_written_by_one_launcher_at_a_time"]},
    31: {LAUNCH: ["test_two_runs_at_once_do_not_meet"]},
    # data: vanished, cut short, undecodable (which only preparing can meet); the loader dies
    32: {
        TRAINING: [CUT_SHORT, "test_a_file_removed_under_a_running_job_is_read_to_the_end"],
        PIPELINE: [
            "test_unreadable_clips_are_left_out_with_their_reason",
            "test_too_many_unreadable_clips_fail_and_publish_nothing",
        ],
    },
    33: {
        LOADER: ["test_an_error_while_gathering_reaches_the_consumer"],
        HERE: ["test_a_loader_that_dies_in_one_rank_ends_the_run_with_its_cause"],
    },
    34: {RESUME: ["test_a_last_batch_smaller_than_the_number_of_ranks_is_exact"]},
}


def test_every_fault_has_a_test():
    missing = [
        f"row {row}: {file}::{name}"
        for row, files in TESTS.items()
        for file, names in files.items()
        for name in names
        if name not in functions_of(ENGINE / file)
    ]

    assert sorted(TESTS) == list(range(1, 35))
    assert missing == []


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def weights_of(run):
    return load_file(max((run / "ckpt").glob("step[0-9]*")) / "model.safetensors")


@pytest.mark.slow
def test_a_killed_run_is_finished_by_other_ranks_and_threads(
    tiny, undisturbed, launching, tmp_path
):
    found = tiny.train(tmp_path, fault="kill:rank=1,step=12")
    run = launching.the_run(tmp_path)
    resolved = run / "resolved.toml"
    text = resolved.read_text(encoding="utf-8")
    without = "".join(line for line in text.splitlines(True) if not line.startswith("threads"))
    changed = without.replace("gpus = 2", "gpus = 4\nthreads = 2")
    assert "threads = 2" in changed
    resolved.write_text(changed, encoding="utf-8")
    resumed = tiny.resume(run)

    assert found.code == 137
    assert resumed.code == 0, resumed.stderr
    assert (run / "log" / "rank3.jsonl").is_file()
    wanted, got = weights_of(undisturbed.run), weights_of(run)
    assert all(np.allclose(got[name], value, atol=1e-6) for name, value in wanted.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "step"),
    [("resample", 12), ("freeze", 8)],
    ids=["resampling, killed inside of an epoch", "freezing, killed at the end of an epoch"],
)
def test_the_state_of_a_method_survives_a_kill(what, step, tiny, undisturbed, launching, tmp_path):
    method = ("-s", f"method.name={ENGINE / 'resuming.py'}", "-s", f"method.what={what}")
    last = ("-s", "train.select=last")
    whole = tiny.train(tmp_path / "whole", *method, *last)
    restarts = ("-s", "launch.max_restarts=1")
    found = tiny.train(
        tmp_path / "killed", *method, *last, *restarts, fault=f"kill:rank=1,step={step}"
    )

    assert (whole.code, found.code) == (0, 0), whole.stderr + found.stderr
    assert [a["exit_code"] for a in launching.status(found.run)["attempts"]] == [137, 0]
    assert launching.weights_hash(found.run) == launching.weights_hash(whole.run)
    assert launching.weights_hash(whole.run) != undisturbed.hash


DYING = """
import os

from mmtool.data.gather import Gatherer
from mmtool.methods import none

Options = none.Options
_look_up, _calls = Gatherer.look_up, []


def look_up(self, visits):
    _calls.append(visits)
    if len(_calls) > 9 and os.environ.get("RANK") == "1":
        raise RuntimeError("the loader's thread is done for")
    return _look_up(self, visits)


Gatherer.look_up = look_up


class Method(none.Method):
    pass
"""


@pytest.mark.slow
def test_a_loader_that_dies_in_one_rank_ends_the_run_with_its_cause(tiny, launching, tmp_path):
    plugin = tmp_path / "dying.py"
    plugin.write_text(DYING, encoding="utf-8")
    found = tiny.train(tmp_path / "runs", "-s", f"method.name={plugin}")
    told = launching.status(launching.the_run(tmp_path / "runs"))

    assert found.code == 1, found.stderr
    assert "rank 1: RuntimeError: the loader's thread is done for" in found.stderr
    assert (told["state"], told["rank"], told["exit_code"]) == ("failed", 1, 1)

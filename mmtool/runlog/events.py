"""The run log, schema `mmtool-log/1.0`: what training writes and diagnosis reads.

One append-only JSON-lines file per rank, `log/rank<N>.jsonl`, flushed per line, plus
`log/system.rank<N>.jsonl`. Strict JSON: a non-finite number is written as null and its key is
listed in `"bad"`. A reader ignores keys and kinds it does not know, and refuses another major
version. After a resume the same step may occur twice; the line with the highest attempt wins, and
lines of an earlier attempt beyond the point of the resume do not count.

Every line has `k` (kind) and `t` (seconds since the epoch). Durations are in milliseconds (`ms`).

head   first line of every attempt: schema, run, rank, world, attempt, modalities [names], classes
       [names], dataset, dataset_hash, protocol, method, fusion, optimizer, unimodal (the way),
       batch_size, epochs, seed, steps_per_epoch, num_train, num_val, num_test, chance (best score
       of one constant answer on val: the majority rate, 0 for r2), parameters {group: count},
       device, task single_label | multi_label | regression, metric; absent: a single_label accuracy
step   step (0-based), epoch, n (global samples), loss, lr, gnorm (before clipping), skipped (bool),
       terms {loss name: value}, ms {step, data, transfer, forward, backward, sync, optimizer},
       m {modality: {score, coef, gnorm, ...}}
epoch  epoch (0-based), step (steps done), split "train" | "val" | "test", n, loss, acc, metric,
       m {modality: {acc, nll, how, alone, drop, flip, probe, probe_nll}}
         metric    what every score of this line is, higher being better, whatever its key:
                   accuracy; label_accuracy, the mean over classes of right yes and no answers; r2,
                   which has no lower end. Beside it, fused only: f1_macro and map (mean average
                   precision) with label_accuracy, mae and pearson with r2
         acc, nll  of the unimodal logits, obtained as `how` says: decompose | head | ablate; nll
                   is the mean loss, a squared error with r2
         alone     accuracy with every other modality replaced by its mean feature
         drop      fused accuracy minus accuracy with this modality permuted over samples
         flip      share of predictions that change when this modality is permuted; instead, with
                   r2: shift, mean distance that they move in deviations of the target
         probe     accuracy of a linear probe on the detached features (absent without probes)
         <name>_se standard error of acc, alone, drop, shift and probe over samples, with r2 only
         Where encoders hear each other (mmtm), all of these are of encoders that hear running
         averages instead, so that no other tells of what is permuted or left out.
sys    cpu_percent and rss_mb of the process, host_cpu_percent, load1, psi_cpu | psi_io | psi_memory
       (pressure, where the kernel has it), with a GPU: gpus [{util, mem_mb, power_w, temp_c}]
event  what: checkpoint | resume | restart | signal | warning | method | placement |
       nonfinite (samples, terms, modalities, stored, groups) | memory (micro-batches were cut) |
       compile (graphs, graph_breaks) | branch (branch: its name, with branch_epoch, loss and ms
       after each of its epochs, or before and after {split.loss name: mean loss} at its end), and
       free fields; any event that happened in a branch names it as branch
end    status done | failed | stopped, reason

`status.json` of the run directory holds state queued | running | done | failed | stopped, reason,
step, epoch, attempt, pid, host, updated, resumable, exit_code, rank (that failed first),
teachers {modality: {run, weights, sha256, key}} of a run that builds on others, and
attempts [{attempt, reason, exit_code, rank, step, seconds}] of a run with several ranks; it is
replaced atomically.
"""

from typing import Any, TypeAlias

SCHEMA = "mmtool-log/1.0"
SCHEMA_MAJOR = 1

Event: TypeAlias = dict[str, Any]

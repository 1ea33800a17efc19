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
       source (what logged it, if not the engine: mmtool.log, whose epoch lines tell chance),
       device, task single_label | multi_label | regression, metric; absent: a single_label accuracy
step   step (0-based), epoch, n (global samples), loss, lr, gnorm (before clipping), skipped (bool),
       terms {loss name: value}, ms {step, data, transfer, forward, backward, sync, optimizer},
       m {modality: {score, coef, gnorm, ...}}; every log.norms_every_steps steps with pnorm and
       unorm, norms of the encoder's parameters and of what this step added to them, 0 if skipped.
       ms has also cpu (of a run on the CPU: the thread's processor time in forward and backward),
       between (since the step before ended, without the wait for data), fusion (part
       of forward) and fusion_backward (part of backward, with that of the loss); m has forward_ms
       and backward_ms of each encoder, except where encoders exchange and run as one. On a GPU
       these are the device's own times, data and transfer what it waited for them, and queue_empty
       says whether it had run out of work when the batch was there (1) or not (0)
epoch  epoch (0-based), step (steps done), split "train" | "val" | "test", n, loss, acc, metric,
       m {modality: {acc, nll, how, alone, drop, drop_nll, flip, flip_n, erank, probe, probe_nll}}
         metric    what every score of this line is, higher being better, whatever its key:
                   accuracy; label_accuracy, the mean over classes of right yes and no answers; r2,
                   which has no lower end. Beside it, fused only: f1_macro and map (mean average
                   precision) with label_accuracy, mae and pearson with r2
         acc, nll  of the unimodal logits, obtained as `how` says: decompose | head | ablate; nll
                   is the mean loss, a squared error with r2
         alone     accuracy with every other modality replaced by its mean feature
         drop      fused accuracy minus accuracy with this modality permuted over samples
         drop_nll  how much the mean loss grows by that; a loss of classes above -log(1e-6) counts
                   as that much
         flip      share of predictions that change when this modality is permuted; instead, with
                   r2: shift, mean distance that they move in deviations of the target
         flip_n    number of samples that were permuted for drop, drop_nll, flip and shift: those
                   that have the modality among at most log.flip_samples, on test among all; the
                   same samples after every epoch. Without it: all n
         erank     effective rank of the centred features of at most so many samples: exp of the
                   entropy of the normalised singular values; 0 where they are all the same
         probe     accuracy of a linear probe on the detached features (absent without probes)
         <name>_se standard error of acc, alone, drop, shift and probe over samples, with r2 only
         Where encoders hear each other (mmtm), all of these are of encoders that hear running
         averages instead, so that no other tells of what is permuted or left out.
         Of the train split all of these are of one sample of at most log.train_samples, the same
         every time; in a long run there is such a line after some epochs only, the last among them
sys    cpu_percent and rss_mb of the process, host_cpu_percent, load1, psi_cpu | psi_io | psi_memory
       (pressure, where the kernel has it), psi_cgroup_<resource> (in a container). With a GPU:
       allocated_peak_mb, reserved_peak_mb (since the line before), alloc_retries and alloc_ooms (so
       far) of torch's allocator in this process, gpus [{util, mem_mb, power_w, power_limit_w,
       energy_j (since the driver was loaded), temp_c, sm_mhz, reasons (NVML's bits for why the
       clock is held down), processes, foreign_mb (memory of those not of this run), sm, occupancy,
       tensor, dram (percentages since the line before; Hopper and later)}] with null for what it
       cannot tell, and in the first line lacks [names that no GPU can tell]
event  what: checkpoint | resume | restart | signal | warning | method | placement |
       nonfinite (samples, terms, modalities, stored, groups) | memory (micro-batches were cut) |
       overhead (after an epoch: share, what measuring cost since the last such event over all
       other time, parts {part: share} as engine/overhead.py names them, wall_s, norms_every_steps,
       and a message where norms are taken less often from now on) |
       evaluation (split, ms; written at its end) | operators (num: differentiable operators of the
       forward pass of one step, counted once) | compile (graphs, graph_breaks) | branch (branch:
       its name, with branch_epoch, loss and ms after each of its epochs, or before and after
       {split.loss name: mean loss} at its end), and free fields; any event that happened in a
       branch names it as branch. A checkpoint has name and stall_ms, what training waited for it
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

"""The run directory: the only contract between training and analysis.

runs/<sweep>/<run>/
    config.json       resolved and frozen when the run was planned, with its hash
    provenance.json   code, package versions, hardware, corpus and tokenizer hashes, first start
    attempt.json      who owns the run now (host, pid, start time, batch job, token); replaced by a later one
    metrics.jsonl     append-only, one object a line; a step that was logged twice counts once, the later
    failure.json      why the last attempt ended badly; removed when the run finishes
    killed.json       why the run was given up on, where it was
    record.json       written once, atomically, last
    checkpoints/
"""

from harness.runs.attempt import (
    AlreadyFinished,
    Attempt,
    IsGone,
    Killed,
    Superseded,
    claim,
    never,
)
from harness.runs.directory import (
    FINISHED,
    RunDirectory,
    Status,
    finished_records,
    planned_ids,
    run_directories,
    write_frozen,
)
from harness.runs.files import (
    ATTEMPT,
    CONFIG,
    FAILURE,
    KILLED,
    METRICS,
    PLAN,
    PROVENANCE,
    RECORD,
    TRUNK_STATES,
    TRUNKS,
    content_hash,
    one_at_a_time,
    read_json,
    read_json_if_any,
    sync_folder,
    write_json,
    write_text,
)
from harness.runs.killed import killed_reason, mark_killed, revive
from harness.runs.owner import (
    FOREIGN_SILENCE_SECONDS,
    JobAttempt,
    Owner,
    Process,
    parse_process,
    read_owner,
    this_job,
    this_process,
)
from harness.runs.record import RunRecord, Skipped

__all__ = [
    "ATTEMPT",
    "CONFIG",
    "FAILURE",
    "FINISHED",
    "FOREIGN_SILENCE_SECONDS",
    "KILLED",
    "METRICS",
    "PLAN",
    "PROVENANCE",
    "RECORD",
    "TRUNKS",
    "TRUNK_STATES",
    "AlreadyFinished",
    "Attempt",
    "IsGone",
    "JobAttempt",
    "Killed",
    "Owner",
    "Process",
    "RunDirectory",
    "RunRecord",
    "Skipped",
    "Status",
    "Superseded",
    "claim",
    "content_hash",
    "finished_records",
    "killed_reason",
    "mark_killed",
    "never",
    "one_at_a_time",
    "parse_process",
    "planned_ids",
    "read_json",
    "read_json_if_any",
    "read_owner",
    "revive",
    "run_directories",
    "sync_folder",
    "this_job",
    "this_process",
    "write_frozen",
    "write_json",
    "write_text",
]

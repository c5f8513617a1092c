"""Work of any kind: who may claim it, what is fenced, what a crash costs, and how projects share the workers.

    kinds     what kinds there are; one call registers another
    claims    claim in fair order, renew, release, make room for another project
    held      what one claim may write, each write fenced

The kinds of a fine-tuning job are in `service.operations.job_work`, rows in `service.db.work`.
"""

"""Pipeline runs on the laptop: the part of the Kubeflow Pipelines API that `kfp.Client` and `kfp` use.

The server (`python -m embedded.runs`) keeps experiments, pipelines and runs in SQLite and starts one process
per run (`python -m embedded.runs.executor`), which runs the compiled pipeline with `kfp.local`. Server and
executor share nothing but the run's folder, so either may die without the other.
"""

"""Running an attempt on this host: spawner, shim, sandbox, cgroups, workspace, attempt directory.

What the shim imports (all but probe, runner, zygote_client and journal_watch) needs the standard library only.
"""

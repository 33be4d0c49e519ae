complete --keep-order --exclusive --command mlx-cache --arguments "(MLX_CACHE_COMPLETE=fish mlx-cache -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"

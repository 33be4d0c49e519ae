
set edit:completion:arg-completer[mlx-cache] = { |@words|
    var index = (count $words)
    set index = (- $index 1)

    put (env _CLAP_IFS="\n" _CLAP_COMPLETE_INDEX=(to-string $index) MLX_CACHE_COMPLETE="elvish" mlx-cache -- $@words) | to-lines
}


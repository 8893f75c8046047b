"""The methods: one algorithm per file, each fitted on good images only."""

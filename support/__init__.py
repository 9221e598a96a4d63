"""What every command uses: command line, device, files, figures."""

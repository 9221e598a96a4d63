"""What every command needs: command line, device, files, figures."""

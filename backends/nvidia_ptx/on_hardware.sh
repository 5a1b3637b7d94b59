#!/bin/sh
# What is to be known of an NVIDIA GPU. usage: on_hardware.sh BUILD [OPTION...]; see backends/support/on_hardware.sh
exec "$(dirname "$0")/../support/on_hardware.sh" nvidia:0 "$@"

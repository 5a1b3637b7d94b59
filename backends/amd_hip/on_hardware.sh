#!/bin/sh
# What is to be known of an AMD GPU. usage: on_hardware.sh BUILD [OPTION...]; see backends/support/on_hardware.sh
exec "$(dirname "$0")/../support/on_hardware.sh" amd:0 "$@"

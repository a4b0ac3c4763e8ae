#!/bin/sh
# For a wrapper that quotes the arguments of what it runs.
eval "exec $FAULTS_COMMAND"

package xfs_test

import "flag"

var thorough = flag.Bool("thorough", false, "damage every field in every way, instead of a part of that")

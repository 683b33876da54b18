"""Tests of the whole thing: real servers in their own processes, seen from outside."""

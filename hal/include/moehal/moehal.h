/* moehal.h: the whole public API of the core. Backends include backend.h besides. */
#ifndef MOEHAL_MOEHAL_H
#define MOEHAL_MOEHAL_H

#include <moehal/base.h>
#include <moehal/buffer.h>
#include <moehal/comm.h>
#include <moehal/device.h>
#include <moehal/error.h>
#include <moehal/faults.h>
#include <moehal/graph.h>
#include <moehal/kernel.h>
#include <moehal/op.h>
#include <moehal/runtime.h>
#include <moehal/step.h>
#include <moehal/stream.h>
#include <moehal/tensor.h>
#include <moehal/timeline.h>
#include <moehal/transport.h>
#include <moehal/weight.h>

#endif

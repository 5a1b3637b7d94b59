/* The table on top of the toolkit's header. */
#include <stddef.h>
#include <cuda.h>
#define ABI_TABLE toolkit_table
#define ABI_ROWS toolkit_rows
#include "abi_table.h"

#include "zlm_journal.h"
#include "zlm_journal.h" /* NOLINT(readability-duplicate-include) */

/* A translation unit must not be empty. */
zlm_journal_handle zlm_journal_header_alone;

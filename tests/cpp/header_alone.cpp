#include "zlm_journal.h"
#include "zlm_journal.h"

// A translation unit must not be empty.
zlm_journal_handle zlm_journal_header_alone;

#include "mk_events_objects.h"

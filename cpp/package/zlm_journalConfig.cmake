# find_package(zlm_journal): the targets zlm_journal::static and zlm_journal::shared, and, where they were built,
# zlm_journal::mk_static and zlm_journal::mk_shared, the host over ZLMediaKit's C API. Link mk_static before libmk_api.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include("${CMAKE_CURRENT_LIST_DIR}/zlm_journalTargets.cmake")

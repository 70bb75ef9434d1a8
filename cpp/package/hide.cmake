# cmake -DARCHIVE=<libzlm_journal.a as cargo makes it> -DHEADER=<zlm_journal.h> -DOBJECT=<result> -DAR=… -DLINKER=… -DNM=… -DOBJCOPY=… -P
#
# Makes one object of all that can be reached from the functions of the header, which are its only global symbols.
foreach(name ARCHIVE HEADER OBJECT AR LINKER NM OBJCOPY)
    if(NOT ${name})
        message(FATAL_ERROR "zlm-journal: ${name} is not set")
    endif()
endforeach()

function(run)
    execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE error)
    if(NOT result EQUAL 0)
        message(FATAL_ERROR "zlm-journal: ${ARGN}: ${result}\n${output}${error}")
    endif()
    set(output "${output}" PARENT_SCOPE)
endfunction()

set(roots)
file(STRINGS "${HEADER}" functions REGEX "^int32_t zlm_journal_")
foreach(function IN LISTS functions)
    string(REGEX MATCH "zlm_journal_[a-z_]+" name "${function}")
    list(APPEND roots -u "${name}")
endforeach()
get_filename_component(folder "${OBJECT}" DIRECTORY)
file(MAKE_DIRECTORY "${folder}")
set(archive "${OBJECT}.a")
set(names "${OBJECT}.symbols")
# The bitcode that Rust's standard library brings for its own compiler is of no use, and the plugin of an older LLVM, which
# binutils load if there is one, fails over it.
run("${OBJCOPY}" --remove-section=.llvmbc --remove-section=.llvmcmd --strip-debug "${ARCHIVE}" "${archive}")
# The C++ side of the bridge, which only a MediaServer calls, has an initializer that needs the C++ library.
run("${AR}" t "${archive}")
string(REGEX MATCHALL "[^\n]*-(cxx|bridge\\.rs)\\.o" bridge "${output}")
if(NOT bridge)
    message(FATAL_ERROR "zlm-journal: ${ARCHIVE} has no cxx bridge")
endif()
run("${AR}" d "${archive}" ${bridge})
run("${LINKER}" -r --gc-sections --force-group-allocation ${roots} -o "${OBJECT}" "${archive}")
# Also what the linker leaves of that which nothing refers to any more.
run("${OBJCOPY}" --strip-unneeded "${OBJECT}")
# Not --keep-global-symbol: that would make symbols necessary which the C library need not have (weak ones).
run("${NM}" --defined-only --extern-only --format=just-symbols "${OBJECT}")
string(REGEX REPLACE "(^|\n)zlm_journal_[a-z_]+" "" others "${output}")
file(WRITE "${names}" "${others}")
run("${OBJCOPY}" "--localize-symbols=${names}" "${OBJECT}")
file(REMOVE "${archive}" "${names}")

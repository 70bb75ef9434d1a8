# Adds zlm-journal to a build of ZLMediaKit, whose own CMake files stay unchanged. Configure it with
#
#   cmake -DCMAKE_PROJECT_ZLMediaKit_INCLUDE=<zlm-journal>/cpp/zlmediakit.cmake …
#
# after applying the patches (see patches/README.md). CMake runs this file right after ZLMediaKit's project() call.
if(CMAKE_VERSION VERSION_LESS 3.19)
    message(FATAL_ERROR "zlm-journal needs CMake 3.19 or newer to join ZLMediaKit's build; this is ${CMAKE_VERSION}")
endif()

get_filename_component(ZLM_JOURNAL_DIR "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)

# Each hook must occur once, in the first of these files or in the second.
foreach(row "ZLM_JOURNAL_CALL|server/WebApi.cpp" "ZLM_JOURNAL_MAP|server/WebApi.h|server/WebApi.cpp"
            "ZLM_JOURNAL_OPEN|server/main.cpp" "ZLM_JOURNAL_RESTORE|server/main.cpp" "ZLM_JOURNAL_CLOSE|server/main.cpp")
    string(REPLACE "|" ";" files "${row}")
    list(POP_FRONT files hook)
    set(times 0)
    foreach(file IN LISTS files)
        file(STRINGS "${CMAKE_CURRENT_SOURCE_DIR}/${file}" found REGEX "${hook}\\(" ENCODING UTF-8)
        list(LENGTH found here)
        math(EXPR times "${times} + ${here}")
    endforeach()
    if(NOT times EQUAL 1)
        string(REPLACE ";" " or " files "${files}")
        message(FATAL_ERROR
            "zlm-journal: ${files} has ${times} lines with ${hook}( instead of 1. Apply the patches in the ZLMediaKit tree:\n"
            "  ${ZLM_JOURNAL_DIR}/patches/apply ${CMAKE_CURRENT_SOURCE_DIR}")
    endif()
endforeach()

add_subdirectory("${ZLM_JOURNAL_DIR}" "${CMAKE_BINARY_DIR}/zlm-journal" EXCLUDE_FROM_ALL)

# Deferred, because ZLMediaKit defines MediaServer later.
function(zlm_journal_join_mediaserver)
    if(NOT TARGET MediaServer)
        message(FATAL_ERROR "zlm-journal: this build has no MediaServer: set -DENABLE_SERVER=ON")
    endif()
    set_property(TARGET MediaServer APPEND PROPERTY SOURCES
        "${ZLM_JOURNAL_DIR}/cpp/api_calls.cpp" "${ZLM_JOURNAL_DIR}/cpp/client_call.cpp"
        "${ZLM_JOURNAL_DIR}/cpp/crash.cpp" "${ZLM_JOURNAL_DIR}/cpp/events.cpp" "${ZLM_JOURNAL_DIR}/cpp/host.cpp"
        "${ZLM_JOURNAL_DIR}/cpp/intercept.cpp" "${ZLM_JOURNAL_DIR}/cpp/page.cpp" "${ZLM_JOURNAL_DIR}/cpp/plugin.cpp"
        "${ZLM_JOURNAL_DIR}/cpp/pulls.cpp")
    set_property(TARGET MediaServer APPEND PROPERTY INCLUDE_DIRECTORIES
        "${ZLM_JOURNAL_DIR}/cpp"
        "${CMAKE_SOURCE_DIR}/server"
        "$<TARGET_PROPERTY:zlm_journal,INTERFACE_INCLUDE_DIRECTORIES>")
    set_property(TARGET MediaServer APPEND PROPERTY LINK_LIBRARIES zlm_journal)
    # A static library of Rust contains much that is never called.
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
        set_property(TARGET MediaServer APPEND PROPERTY LINK_OPTIONS "-Wl,--gc-sections")
    endif()
    if(MSVC)
        set(include_flag "/FI")
    else()
        set(include_flag "-include ")
    endif()
    set_property(TARGET MediaServer APPEND PROPERTY COMPILE_OPTIONS
        "$<$<COMPILE_LANGUAGE:CXX>:SHELL:${include_flag}${ZLM_JOURNAL_DIR}/cpp/zlm_journal_hooks.h>")
    add_dependencies(MediaServer zlm_journal_cargo)
    message(STATUS "zlm-journal: joins MediaServer")
endfunction()
cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL zlm_journal_join_mediaserver)

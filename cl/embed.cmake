# Writes OUTPUT, a C file with the text of every file of FILES: TABLE[] of {name, text}.
set(table "")
set(body "")
set(count 0)
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND body "static const char text_${count}[] = {${bytes}0};\n")
  string(APPEND table "    {\"${name}\", text_${count}},\n")
  math(EXPR count "${count} + 1")
endforeach()
file(WRITE ${OUTPUT} "#include \"host/runtime/embedded.h\"\n\n${body}
const cldsa_embedded_file ${TABLE}[] = {\n${table}    {0, 0},\n};\n")

! The same from Fortran 2003:  ./flux_fortran libonnxruntime.so cfd.onnx < inputs.txt
module surrogate
  use, intrinsic :: iso_c_binding
  use, intrinsic :: iso_fortran_env, only: error_unit
  implicit none

  interface
    integer(c_int) function surrogate_open(s, library, file, threads) bind(c)
      import :: c_int, c_ptr, c_char
      type(c_ptr), intent(out) :: s
      character(kind=c_char), intent(in) :: library(*), file(*)
      integer(c_int), value :: threads
    end function

    integer(c_int) function surrogate_call(s, rows, n_in, x, n_out, y) bind(c)
      import :: c_int, c_int64_t, c_ptr, c_float
      type(c_ptr), value :: s
      integer(c_int64_t), value :: rows, n_in, n_out
      real(c_float), intent(in) :: x(n_in, rows)
      real(c_float), intent(out) :: y(n_out, rows)
    end function

    type(c_ptr) function surrogate_error() bind(c)
      import :: c_ptr
    end function

    subroutine surrogate_close(s) bind(c)
      import :: c_ptr
      type(c_ptr), value :: s
    end subroutine
  end interface

contains

  subroutine check(status)
    integer(c_int), intent(in) :: status
    character(kind=c_char), pointer :: text(:)
    integer :: n
    if (status == 0) return
    call c_f_pointer(surrogate_error(), text, [512])
    n = findloc(text, c_null_char, 1) - 1
    write (error_unit, "(*(a))") text(:n)
    stop 1
  end subroutine
end module

program flux
  use surrogate
  implicit none
  integer(c_int64_t), parameter :: n_in = 20, n_out = 5, block = 64
  real(c_float) :: x(n_in, block), y(n_out, block)
  character(len=1024) :: library, file
  type(c_ptr) :: s
  integer(c_int64_t) :: rows, row
  integer :: status

  call get_command_argument(1, library)
  call get_command_argument(2, file)
  call check(surrogate_open(s, trim(library)//c_null_char, trim(file)//c_null_char, 1_c_int))
  do
    rows = 0
    do while (rows < block)
      read (*, *, iostat=status) x(:, rows + 1)
      if (status /= 0) exit
      rows = rows + 1
    end do
    if (rows > 0) then
      call check(surrogate_call(s, rows, n_in, x, n_out, y))
      do row = 1, rows
        print "(*(es16.8))", y(:, row)
      end do
    end if
    if (rows < block) exit
  end do
  call surrogate_close(s)
end program
